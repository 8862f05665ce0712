#!/usr/bin/env bash
# Builds the engine of Flux that InfluxDB 2.7 has, for tests/deploy/test_influx_engine.py: build.sh FOLDER
#
# It takes Go, Rust, a C compiler and a quarter of an hour, so no other test needs it. Then:
#     FLUX_ENGINE=FOLDER/flux-engine make test TESTS=tests/deploy/test_influx_engine.py
set -euo pipefail

folder=$(realpath -m "${1:?"usage: $0 FOLDER"}")
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder/engine"
cp "$here/main.go" "$folder/engine"
cd "$folder/engine"
[ -e go.mod ] || go mod init engine
go get github.com/influxdata/flux@v0.195.2
module=$(go list -m -f '{{.Dir}}' github.com/influxdata/flux)
rm -rf "$folder/libflux" "$folder/stdlib"
cp -r "$module/libflux" "$module/stdlib" "$folder"
chmod -R u+w "$folder/libflux" "$folder/stdlib"
rm -f "$folder/libflux/rust-toolchain" "$folder/libflux/rust-toolchain.toml" # it wants an old one; today's will do
(cd "$folder/libflux" && RUSTFLAGS="--cap-lints allow" cargo build --release)
library="$folder/libflux/target/release"
cat > "$folder/pkg-config" <<SCRIPT
#!/bin/sh
case "\$*" in
*--cflags*) echo "-I$folder/libflux/include" ;;
*--libs*) echo "-L$library -l:libflux.a -ldl -lm -lpthread" ;;
*) echo 0.195.2 ;;
esac
SCRIPT
chmod +x "$folder/pkg-config"
GOCACHE="$folder/go-cache" PKG_CONFIG="$folder/pkg-config" go build -mod=mod -o "$folder/flux-engine" .
echo "built: $folder/flux-engine"
