// Runs a Flux script from stdin with InfluxData's own engine, at the time that FLUX_NOW says, and prints CSV.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/influxdata/flux"
	"github.com/influxdata/flux/csv"
	_ "github.com/influxdata/flux/fluxinit/static"
	"github.com/influxdata/flux/lang"
	"github.com/influxdata/flux/memory"
	"github.com/influxdata/flux/runtime"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	script, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	now, err := time.Parse(time.RFC3339, os.Getenv("FLUX_NOW"))
	if err != nil {
		return err
	}
	ctx := flux.NewDefaultDependencies().Inject(context.Background())
	program, err := lang.Compile(ctx, string(script), runtime.Default, now)
	if err != nil {
		return err
	}
	query, err := program.Start(ctx, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	results := flux.NewResultIteratorFromQuery(query)
	defer results.Release()
	if _, err := csv.NewMultiResultEncoder(csv.DefaultEncoderConfig()).Encode(os.Stdout, results); err != nil {
		return err
	}
	return results.Err()
}
