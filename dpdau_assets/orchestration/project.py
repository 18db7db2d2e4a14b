"""What every asset, job, schedule and sensor is built with: the settings, and the names that they have in Dagster.

A step asks Dagster for the resources that it uses, by the names of its parameters. Two things come from here instead:

- The settings, since partitions and schedules are made from them when the project is loaded, and a run under other
  ones would publish days that Dagster does not know. So they are no resource, and no launch can change them.
- Whether a schedule publishes, since Dagster's instance knows that, and no adapter of ours.

Today is asked of the resource `clock`, which a test may stop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

import dagster as dg

from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.state import SketchStore
from dpdau_assets.core.ports.store import Clock, Erasures, Events, Noise, State, Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.orchestration.names import PUBLISH_DUE_HOURLY

RESOURCES = (
    "accountant",
    "erasure_ledger",
    "events",
    "state",
    "sketches",
    "noise",
    "clock",
    "duckdb",
    "mart",
    "reports",
    "alerts",
)
"""A parameter of a step that is called so is a resource."""

ASSETS = (
    "erasures",
    "activity",
    "day_sketch",
    "dau_release",
    "mau_release",
    "dau_restatement",
    "active_users",
    "budget_report",
    "report",
)

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


class NotAsked:
    """In place of a resource that a step did not ask for. Whatever is asked of it raises AttributeError."""

    def __init__(self, resource: str) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> NoReturn:
        resource = self.__dict__["_resource"]
        raise AttributeError(f"`{name}` of the resource `{resource}`, which this step did not ask for.")


@dataclass(frozen=True)
class Project:
    """dpdau in Dagster, perhaps among other things there: with a prefix, every name of ours carries it.

    Attributes:
        publishes_by: whether a schedule of this name is on in an instance of Dagster.
    """

    settings: Settings
    publishes_by: Callable[[dg.DagsterInstance, str], bool]
    prefix: str | None = None

    def asset(self, name: str) -> dg.AssetKey:
        return dg.AssetKey([self.prefix, name] if self.prefix else [name])

    def name(self, name: str) -> str:
        """What a job, an op, a schedule, a sensor, a resource, a group, a pool or a task of ours is called here."""
        return f"{self.prefix}_{name}" if self.prefix else name

    def asking(self, step: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
        """The step, asking for its resources by the names that they have here: Dagster goes by parameters' names."""
        if not self.prefix:
            return step
        signature = inspect.signature(step)
        ours = {name: self.name(name) for name in signature.parameters if name in RESOURCES}
        names = {here: name for name, here in ours.items()}

        def asked(named: dict[str, Any]) -> dict[str, Any]:
            return {names.get(name, name): value for name, value in named.items()}

        @wraps(step)
        def renamed(*arguments: Any, **named: Any) -> Any:
            return cast(Any, step)(*arguments, **asked(named))

        @wraps(step)
        def renamed_generator(*arguments: Any, **named: Any) -> Any:
            yield from cast(Any, step)(*arguments, **asked(named))

        # Dagster takes a step that is no generator for one that returns its output.
        named_anew = renamed_generator if inspect.isgeneratorfunction(step) else renamed
        parameters = [
            parameter.replace(name=ours.get(parameter.name, parameter.name))
            for parameter in signature.parameters.values()
        ]
        named_anew.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return named_anew

    def store(
        self,
        instance: dg.DagsterInstance | None = None,
        *,
        clock: Clock | None = None,
        accountant: Ledger | None = None,
        erasure_ledger: Erasures | None = None,
        events: Events | None = None,
        state: State | None = None,
        sketches: SketchStore | None = None,
        noise: Noise | None = None,
    ) -> Store:
        """What core calls a store, of the resources that a step asked for; using another one raises AttributeError.

        The instance is that of a step which asks whether a schedule publishes.
        """
        store = Store(
            settings=self.settings,
            clock=clock or _not_asked("clock"),
            events=events or _not_asked("events"),
            state=replace(state, sketches=sketches or _not_asked("sketches")) if state else _not_asked("state"),
            erasures=erasure_ledger or _not_asked("erasure_ledger"),
            accountant=accountant or _not_asked("accountant"),
            noise=noise or _not_asked("noise"),
        )
        if instance is None:
            return store
        return replace(store, is_scheduled=partial(self.publishes_by, instance, self.name(PUBLISH_DUE_HOURLY)))


def _not_asked(resource: str) -> Any:
    return NotAsked(resource)
