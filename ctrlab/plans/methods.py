"""The compression methods: one record each, registered in METHODS; loads without torch.

A method is a record and a file. The record has its name, the place of its code and the size of its tables; the file has a class
that follows `ctrlab.compression.factors.Compressor`. Another package registers its own by `METHODS.add(Method(...))`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ctrlab.errors import UnknownNameError
from ctrlab.plans.table_forms import (
    TableShape,
    kept_ids_shape,
    latents_shape,
    quotient_remainder_shape,
    tensor_train_table_shape,
)
from ctrlab.registry import Registry, load

#: Reduced tables as latents with a projection: what every low-rank method keeps, and what folds into the readers.
LATENTS = "latents"
ShapeOfTable = Callable[[int, int, int], TableShape]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to compress a model. Linear layers become two factors in any case.

    implementation: import path "module:class" of a `Compressor`; imported when the method is used.
    needs_spectra: it needs the spectra of the layers, eigenvectors included.
    needs_gradients: the spectra must also hold the gradients of the log loss.
    needs_counts: it uses how often training looks up each id of a table.
    table_form: what reduced tables are kept as, as checkpoints name it.
    table_shape: (num_ids, width, rank) -> the size of a reduced table.
    table_group: import path of the module that holds reduced tables, a `ProjectedGroup` or a `ReducedGroup`.
    retrains: it re-initialises the tables, so that its result needs a full training.
    """

    name: str
    title: str
    description: str
    implementation: str
    needs_spectra: bool = True
    needs_gradients: bool = False
    needs_counts: bool = False
    table_form: str = LATENTS
    table_shape: ShapeOfTable = latents_shape
    table_group: str = "ctrlab.compression.embedding:ProjectedGroup"
    retrains: bool = False

    @property
    def keeps_latents(self) -> bool:
        """Whether reduced tables are latents with a projection; only these have a basis to share and fold when served."""
        return self.table_form == LATENTS

    @property
    def projects_outputs(self) -> bool:
        """Whether linear layers are projected on the principal directions of their outputs, as AFM does.

        The spectra tell what variance such a layer loses. The sensitivity, which is measured by such truncation, tells the AUC
        where tables are kept as latents too.
        """
        return self.implementation == AFM.implementation

    def compressor(self) -> Any:
        """A new `ctrlab.compression.factors.Compressor`; imports torch."""
        return load(self.implementation)()

    def group_class(self) -> Any:
        """The class that holds reduced tables; imports torch."""
        return load(self.table_group)


AFM = Method(
    name="afm",
    title="AFM",
    description="Atomic feature mimicking: projects each layer's output on its principal directions, which carry its variance.",
    implementation="ctrlab.compression.afm:AFM",
)

METHODS: Registry[Method] = Registry(
    "compression method",
    AFM,
    Method(
        name="weighted_afm",
        title="Loss-weighted AFM",
        description="AFM with the directions of each output weighted by how much the log loss depends on them.",
        implementation="ctrlab.compression.weighted_afm:LossWeightedAFM",
        needs_gradients=True,
    ),
    Method(
        name="svd",
        title="SVD of the weights",
        description="Truncates each weight matrix itself, whatever the data; the baseline AFM is measured against.",
        implementation="ctrlab.compression.svd:WeightSVD",
        needs_spectra=False,
    ),
    Method(
        name="svd_corrected",
        title="SVD with bias correction",
        description="Truncates the weights, and shifts the bias so that each layer's mean output is unchanged.",
        implementation="ctrlab.compression.svd_corrected:CorrectedSVD",
    ),
    Method(
        name="whitened_svd",
        title="Input-whitened SVD",
        description="The best low-rank weights for the inputs the data give, with the bias as it was; AFM without its mean.",
        implementation="ctrlab.compression.whitened:WhitenedSVD",
    ),
    Method(
        name="tensor_train",
        title="Tensor-train tables",
        description="Tables as products of three small cores, of the size that the ranks would give; linear layers "
        "as AFM does them.",
        implementation="ctrlab.compression.afm:AFM",
        needs_counts=True,
        table_form="tensor_train",
        table_shape=tensor_train_table_shape,
        table_group="ctrlab.compression.tensor_train:TensorTrainGroup",
    ),
    Method(
        name="rare_ids",
        title="Dropping rare ids",
        description="The ids seen least in training share one row, as many as must for the size that the ranks would give; "
        "linear layers as AFM does them.",
        implementation="ctrlab.compression.afm:AFM",
        needs_counts=True,
        table_form="rare_ids",
        table_shape=kept_ids_shape,
        table_group="ctrlab.compression.rare_ids:KeptIdsGroup",
    ),
    Method(
        name="qr_hash",
        title="QR hash (retrains)",
        description="Every id's vector is the product of two rows of small tables, of the size that the ranks would give. They "
        "are re-initialised: train as long as the original was trained. Linear layers as AFM does them.",
        implementation="ctrlab.compression.afm:AFM",
        table_form="qr_hash",
        table_shape=quotient_remainder_shape,
        table_group="ctrlab.compression.qr_hash:QuotientRemainderGroup",
        retrains=True,
    ),
)


def method_keeping(table_form: str) -> Method:
    """The first registered method whose reduced tables are kept as `table_form`.

    Raises:
        UnknownNameError: no method that is registered keeps such tables.
    """
    found = next((method for method in METHODS if method.table_form == table_form), None)
    if found is None:
        raise UnknownNameError(
            f"no registered compression method keeps tables as {table_form!r}; import the package that registers it first"
        )
    return found
