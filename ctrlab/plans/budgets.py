"""Budgets: what may be limited, in which unit, and how much of it a model costs; loads without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, log10

from ctrlab.errors import CompressionError
from ctrlab.models.profile import Cost
from ctrlab.registry import Registry

#: The kind that is measured instead of counted.
LATENCY = "latency_ms"


@dataclass(frozen=True, kw_only=True)
class BudgetKind:
    """One quantity that a budget limits, in the form the model is served in.

    name: as code, JSON and addresses have it. title: as forms and axes show it. unit: of a limit, in a sentence.
    help: what a limit means, for a command line flag.
    entry_unit, entry_scale: what a number typed into a form stands for; 1 MB is 1e6 bytes.
    counted: how much of it a cost has; None for latency, which is measured.
    """

    name: str
    title: str
    unit: str
    help: str
    entry_unit: str = ""
    entry_scale: float = 1.0
    counted: Callable[[Cost], int] | None = None

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def goal(self) -> str:
        """A limit of this kind, as a choice among goals."""
        return f"{self.title} in {self.entry_unit}, at most" if self.entry_unit else f"{self.title}, at most"

    def amount(self, cost: Cost) -> float:
        """How much of it `cost` has.

        >>> BUDGET_KINDS["table_bytes"].amount(Cost(parameters_tables=10, bytes_tables=40))
        40.0
        """
        if self.counted is None:
            raise BudgetError(f"{self.title.lower()} is measured, not counted")
        return float(self.counted(cost))


BUDGET_KINDS: Registry[BudgetKind] = Registry(
    "kind of budget",
    BudgetKind(
        name="parameters", title="Parameters", unit="parameters", help="largest number of parameters when served",
        counted=lambda cost: cost.parameters,
    ),
    BudgetKind(
        name="bytes", title="Size", unit="bytes", help="largest size in bytes when served", entry_unit="MB", entry_scale=1e6,
        counted=lambda cost: cost.size_bytes,
    ),
    BudgetKind(
        name="table_bytes", title="Tables", unit="bytes of tables", help="largest size of the tables in bytes when served",
        entry_unit="MB", entry_scale=1e6, counted=lambda cost: cost.bytes_tables,
    ),
    BudgetKind(
        name="macs", title="MACs per row", unit="MACs per row", help="largest number of MACs per row",
        counted=lambda cost: cost.macs,
    ),
    BudgetKind(
        name=LATENCY, title="Milliseconds per call", unit="ms",
        help="largest latency of a batch in torch, as `speed` measures it",
    ),
)  # fmt: skip
#: Names of the kinds that are counted, exactly and without a measurement.
COUNTED_KINDS = tuple(kind.name for kind in BUDGET_KINDS if kind.counted is not None)


class BudgetError(CompressionError):
    """No plan meets the budget; the sentence names the nearest that one meets."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """At most `limit` of what `kind` counts, in the form the model is served in.

    kind: a name in BUDGET_KINDS.
    batch_size: rows of a call, for "latency_ms"; no other kind has one.

    >>> Budget(kind="bytes", limit=2e6).limit
    2000000.0
    >>> Budget(kind="latency_ms", limit=5.0, batch_size=4096).batch_size
    4096
    """

    kind: str
    limit: float
    batch_size: int | None = None

    def __post_init__(self) -> None:
        unit = BUDGET_KINDS[self.kind].unit
        if (self.kind == LATENCY) != (self.batch_size is not None):
            raise BudgetError("a budget of milliseconds needs the batch size that it is for, and no other has one")
        if not self.limit > 0:
            raise BudgetError(f"a budget of {self.limit:g} {unit} is none; give a number above 0")


def too_small(budget: Budget, smallest: float) -> BudgetError:
    """The error for a budget that not even the smallest plan meets, with the amount of that plan."""
    if budget.kind == LATENCY:
        return BudgetError(
            f"no plan is predicted to take at most {budget.limit:.3g} ms at batch {budget.batch_size:,}; the fastest takes "
            f"{milliseconds_up(smallest)} ms: ask for that or more"
        )
    unit = BUDGET_KINDS[budget.kind].unit
    return BudgetError(
        f"no plan has at most {budget.limit:,.0f} {unit}; the smallest there is has {smallest:,.0f}: ask for that or more"
    )


def milliseconds_up(milliseconds: float) -> str:
    """Three digits, rounded up, so that the number can be given as a budget."""
    step = 10.0 ** (floor(log10(milliseconds)) - 2)
    return f"{ceil(milliseconds / step) * step:.10g}"
