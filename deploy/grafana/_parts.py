"""What the panels of every dashboard are made of: one look, one way to show that nothing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models

GREEN: Final = "green"
ORANGE: Final = "orange"
RED: Final = "red"
BLUE: Final = "blue"
GREY: Final = "text"

# Five minutes without a reading is what a user calls missing data: a line ends there and begins anew.
GAP_MS: Final = 300_000


class Target(Dataquery, Builder[Any]):
    """One query of a panel. The kit has types for Prometheus only, so all of ours are plain fields."""

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def build(self) -> Target:
        return self

    def to_json(self) -> dict[str, object]:
        return {"datasource": SOURCE.to_json(), **self._fields}


# No dashboard names a data source: it has a variable for it, which begins as ours.
SOURCE: Final = kinds.DataSourceRef(uid="${datasource}")


@dataclass(frozen=True)
class Answer:
    """How a store answers one question: its queries, and what Grafana does with what comes back."""

    targets: tuple[Target, ...]
    transformations: tuple[tuple[str, Mapping[str, object]], ...] = ()  # id and options
    time_from: str = ""  # where the question has a time range of its own
    interval: str = ""  # the shortest step
    points: int = 0  # the most points; 0: as many as the panel is wide


@dataclass(frozen=True)
class Look:
    """What a number is and when it is alarming."""

    unit: str
    decimals: int | None = None
    steps: Sequence[tuple[float | None, str]] = ((None, GREEN),)
    minimum: float | None = None


PanelT = TypeVar("PanelT", stat.Panel, timeseries.Panel, table.Panel, bargauge.Panel, statetimeline.Panel)


def tile(title: str, description: str, answer: Answer, look: Look, *, calc: str = "last") -> stat.Panel:
    """One large number, with its course behind it where that has one."""
    panel = stat.Panel().reduce_options(common.ReduceDataOptions().calcs([calc]).values(False))
    graph = kinds.BigValueGraphMode.NONE if "d/d" in answer.time_from else kinds.BigValueGraphMode.AREA
    panel = panel.graph_mode(graph).color_mode(kinds.BigValueColorMode.VALUE).text_mode(kinds.BigValueTextMode.AUTO)
    return _filled(panel, title, description, answer, look).color_scheme(_by_thresholds())


def lines(title: str, description: str, answer: Answer, look: Look, stacked: bool = False) -> timeseries.Panel:
    """Lines over time, or areas one upon the other."""
    panel = timeseries.Panel().line_width(1).show_points(kinds.VisibilityMode.NEVER).span_nulls(GAP_MS)
    panel = panel.fill_opacity(60 if stacked else 10)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    return _filled(_legend(panel, ["lastNotNull", "mean", "max"]), title, description, answer, look)


def bars(title: str, description: str, answer: Answer, look: Look, stacked: bool = True) -> timeseries.Panel:
    """A bar for each day, or another step."""
    panel = timeseries.Panel().draw_style(kinds.GraphDrawStyle.BARS).fill_opacity(80).line_width(0)
    panel = panel.bar_alignment(kinds.BarAlignment.AFTER).bar_width_factor(0.8)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    return _filled(_legend(panel, ["sum"]), title, description, answer, look)


def listing(title: str, description: str, answer: Answer, columns: Mapping[str, Look]) -> table.Panel:
    """A table; each column has its own look, the others stay as they are. The last one begins with the most."""
    panel = _filled(table.Panel(), title, description, answer, Look("short"))
    panel = panel.sort_by([common.TableSortByFieldState().display_name([*columns][-1]).desc(True)])
    for name, look in columns.items():
        properties = [models.DynamicConfigValue("unit", look.unit), models.DynamicConfigValue("min", 0)]
        if look.decimals is not None:
            properties.append(models.DynamicConfigValue("decimals", look.decimals))
        if len(look.steps) > 1:
            properties.append(models.DynamicConfigValue("thresholds", _thresholds(look).build()))
            properties.append(models.DynamicConfigValue("custom.cellOptions", {"type": "gauge", "mode": "lcd"}))
        panel = panel.override_by_name(name, properties)
    return panel


def gauges(title: str, description: str, answer: Answer, look: Look, calc: str = "last") -> bargauge.Panel:
    """A bar for each series, with its number."""
    panel = bargauge.Panel().reduce_options(common.ReduceDataOptions().calcs([calc]).values(False))
    panel = panel.display_mode(kinds.BarGaugeDisplayMode.LCD).orientation(kinds.VizOrientation.HORIZONTAL)
    return _filled(panel, title, description, answer, look)


def states(
    title: str, description: str, answer: Answer, ranges: Sequence[tuple[float | None, float | None, str, str]] = ()
) -> statetimeline.Panel:
    """A band for each series, coloured by its state; `ranges` are from, to, name and colour of each."""
    panel = statetimeline.Panel().show_value(kinds.VisibilityMode.AUTO).merge_values(True).fill_opacity(70)
    panel = panel.row_height(0.8).span_nulls(GAP_MS).legend(common.VizLegendOptions().show_legend(False))
    steps = [(low, colour) for low, _, _, colour in ranges] or [(None, GREEN)]
    panel = _filled(panel, title, description, answer, Look("short", steps=steps))
    if not ranges:
        return panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    named = [
        models.RangeMap(
            models.DashboardRangeMapOptions(low, high, models.ValueMappingResult(text=name, color=colour, index=index))
        )
        for index, (low, high, name, colour) in enumerate(ranges)
    ]
    return panel.mappings(list(named)).color_scheme(_by_thresholds())


def _filled(panel: PanelT, title: str, description: str, answer: Answer, look: Look) -> PanelT:
    """Give a panel what all of them have."""
    panel = panel.title(title).description(description).datasource(SOURCE).unit(look.unit).no_value("–")
    panel = panel.thresholds(_thresholds(look))
    for number, target in enumerate(answer.targets):
        panel = panel.with_target(Target(**{"refId": "ABCDEFGH"[number], **target._fields}))
    for name, options in answer.transformations:
        panel = panel.with_transformation(models.DataTransformerConfig(name, options=dict(options)))
    if look.decimals is not None:
        panel = panel.decimals(look.decimals)
    if look.minimum is not None:
        panel = panel.min(look.minimum)
    if answer.time_from:
        panel = panel.time_from(answer.time_from).hide_time_override(True)
    if answer.interval:
        panel = panel.interval(answer.interval)
    if answer.points:
        panel = panel.max_data_points(answer.points)
    return panel


def _legend(panel: timeseries.Panel, calcs: list[str]) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE).show_legend(True).calcs(calcs)
    panel = panel.legend(legend.placement(kinds.LegendPlacement.BOTTOM))
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    return panel.tooltip(tooltip).color_scheme(
        dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    )


def _thresholds(look: Look) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=value, color=colour) for value, colour in look.steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _by_thresholds() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


# ---- the dashboard around them


# Row by row, each with its height; in it the panels, each with its width of 24.
Rows = Sequence[tuple[int, Sequence[tuple[int, Builder[models.Panel]]]]]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    rows: Rows


def page(
    title: str, uid: str, description: str, variables: Sequence[Builder[models.VariableModel]]
) -> dashboard.Dashboard:
    """Begin a dashboard; `laid_out` puts the panels in."""
    made = dashboard.Dashboard(title).uid(uid).description(description).tags(["wattherd"])
    made = made.timezone("browser").week_start("monday").refresh("30s").time("now-24h", "now").editable()
    made = made.tooltip(models.DashboardCursorSync.CROSSHAIR)
    for variable in variables:
        made = made.with_variable(variable)
    others = dashboard.DashboardLink("wattherd").type(models.DashboardLinkType.DASHBOARDS).tags(["wattherd"])
    house = dashboard.DashboardLink("House page").type(models.DashboardLinkType.LINK).url("${wattherd}/")
    house = house.tooltip("The page of the house itself").target_blank(True).icon("external link")
    return made.link(others.as_dropdown(True).keep_time(True)).link(house)


def laid_out(made: dashboard.Dashboard, sections: Sequence[Section]) -> models.Dashboard:
    """Place every panel, and number it."""
    top = number = 0
    for section in sections:
        number += 1
        heading = dashboard.Row(section.title).id(number).grid_pos(models.GridPos(h=1, w=24, x=0, y=top))
        made = made.with_row(heading)
        top += 1
        for height, panels in section.rows:
            left = 0
            for width, panel in panels:
                number += 1
                place = models.GridPos(h=height, w=width, x=left, y=top)
                made = made.with_panel(panel.id(number).grid_pos(place))  # type: ignore[attr-defined]
                left += width
            top += height
    return made.build()


# ---- variables


def data_source(plugin: str, uid: str, name: str) -> Builder[models.VariableModel]:
    current = models.VariableOption(selected=True, text=name, value=uid)
    variable = dashboard.DatasourceVariable("datasource").label("Data source").type(plugin)
    return variable.current(current).description("Where the numbers come from")


def text_box(name: str, label: str, default: str, description: str) -> Builder[models.VariableModel]:
    return dashboard.TextBoxVariable(name).label(label).default_value(default).description(description)


def asked(
    name: str,
    label: str,
    query: str | dict[str, object],
    default: str,
    description: str,
    *,
    regex: str = "",
    several: str = "",
) -> Builder[models.VariableModel]:
    """A variable whose values the store knows; `several` is what stands for all of them at once, if that may be."""
    variable = dashboard.QueryVariable(name).label(label).description(description).datasource(SOURCE).query(query)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.sort(models.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC).regex(regex)
    if several:
        everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
        return variable.multi(True).include_all(True).all_value(several).current(everything)
    return variable.current(models.VariableOption(selected=True, text=default, value=default))
