"""What a store has to answer so that the household's dashboard can be drawn from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._parts import Answer, Look


class Store(ABC):
    """Graphite, InfluxDB or Prometheus. Energy is in kWh, power in W, whatever the store keeps."""

    name: ClassVar[str]
    plugin: ClassVar[str]  # as Grafana calls the kind of data source
    uid: ClassVar[str]  # of ours, in provisioning/datasources
    how: ClassVar[str]  # how the energy of a day is worked out, in a sentence for the descriptions
    since_calc: ClassVar[str]  # what makes one number of `cost_since`

    @abstractmethod
    def variables(self) -> Sequence[Builder[models.VariableModel]]:
        """Everything but the data source and the address of the house page."""

    @abstractmethod
    def house_now(self) -> Answer:
        """Power of the house; nothing when it is older than five minutes."""

    @abstractmethod
    def house_power(self) -> Answer: ...

    @abstractmethod
    def house_days(self, days: int) -> Answer:
        """Energy used on each of the last days and, last, today."""

    @abstractmethod
    def house_export_days(self, days: int) -> Answer: ...

    @abstractmethod
    def house_balance_days(self, days: int) -> Answer:
        """Used upwards, sent out downwards."""

    @abstractmethod
    def devices_now_and_today(self) -> Answer:
        """A table with the columns Device, Power and Today; the meter of the house is not in it."""

    @abstractmethod
    def devices_power(self) -> Answer: ...

    @abstractmethod
    def devices_days(self, days: int) -> Answer: ...

    @abstractmethod
    def circuits_power(self) -> Answer: ...

    @abstractmethod
    def circuits_days(self, days: int) -> Answer: ...

    @abstractmethod
    def cost_days(self, days: int) -> Answer: ...

    @abstractmethod
    def cost_since(self, since: str) -> Answer:
        """Cost since the beginning of a week ("now/w") or a month."""

    @abstractmethod
    def gas_days(self, days: int) -> Answer:
        """Cubic metres."""

    @abstractmethod
    def gas_energy_days(self, days: int) -> Answer: ...

    @abstractmethod
    def states(self) -> Answer: ...

    @abstractmethod
    def voltage(self) -> Answer: ...

    @abstractmethod
    def frequency(self) -> Answer: ...

    # Where a store has no states, they are told from the power: from, to, name, colour.
    state_ranges: ClassVar[Sequence[tuple[float | None, float | None, str, str]]] = ()


def columns(power: Look, energy: Look) -> dict[str, Look]:
    """The looks of the columns of `devices_now_and_today`."""
    return {"Power": power, "Today": energy}
