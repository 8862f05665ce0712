"""Every file that is generated, by its name below deploy/grafana."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._alerts import alert_files
from deploy.grafana._flux import Influx
from deploy.grafana._graphite import Graphite
from deploy.grafana._health import health
from deploy.grafana._home import home
from deploy.grafana._promql import Prometheus


def files(currency: str) -> dict[str, str]:
    """Return the text of each file."""
    made = {}
    for store in (Graphite(), Influx(), Prometheus()):
        made[f"dashboards/home-{store.name.lower()}.json"] = _text(home(store, currency), store.plugin)
    made["dashboards/health.json"] = _text(health(), "prometheus")
    return made | dict(alert_files())


def _text(made: models.Dashboard, plugin: str) -> str:
    whole = json.loads(json.dumps(made, cls=JSONEncoder))
    return json.dumps(_typed(whole, plugin), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _typed(part: Any, plugin: str) -> Any:
    """Say beside each reference to the data source of what kind it is."""
    if isinstance(part, list):
        return [_typed(one, plugin) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("uid") == "${datasource}":
        return {"type": plugin, "uid": "${datasource}"}
    # `placement` hides a link in a menu; there is no word for beside the title, it is there by default.
    return {
        key: _typed(value, plugin) for key, value in part.items() if (key, value) != ("placement", "inControlsMenu")
    }
