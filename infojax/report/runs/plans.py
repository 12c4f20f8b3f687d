"""The figures of runs, as data: a figure of another paper is another `Plan` here, and no code."""

from typing import Any, NamedTuple

from infojax.measures.catalogue import CATALOGUE


class Line(NamedTuple):
    """One curve of a panel; `split` "" is that of the panel's column, or the train split (else the first).

    A quantity that ends in "@*" stands for a line per layer, coloured by depth; `layer` is filled in when it is drawn.
    """

    quantity: str
    label: str = ""
    split: str = ""
    dash: Any = "-"  # where colours tell runs apart, lines that share a dash get one each
    layer: Any = None


class Panel(NamedTuple):
    """One axis; y begins at `bottom`, if given, however low an interval reaches."""

    title: str
    lines: tuple[Line, ...]
    log: bool = False
    bottom: float | None = None


class Plan(NamedTuple):
    """One figure.

    Attributes:
      title: its first line.
      caption: a sentence or two for the page.
      panels: one row per panel and one column per split; or, with `columns`, a grid with that many columns.
      columns: 0 for a column per split.
      x: "time" (epochs where they are known, else steps), "step", "swept" (the last evaluation against the swept
        hyper-parameter), or one of COORDINATES.
      task: of the runs that it is for; "" for all.
      each_run: a column per run instead of a split, with the steps where it memorised and generalised.
      limits: what the legend calls the dashed limits; "" draws none.
      compared: whether the page of several runs has it; lines of layers get a column per run there.
      height: of a panel, in inches.
    """

    title: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 0
    x: str = "time"
    task: str = ""
    each_run: bool = False
    limits: str = "limit at neural collapse"
    compared: bool = False
    height: float = 2.05


def lines(*quantities: str, **fields: Any) -> tuple[Line, ...]:
    """A line of each quantity."""
    return tuple(Line(quantity, **fields) for quantity in quantities)


def splits(quantity: str) -> tuple[Line, ...]:
    """A quantity on train, and dashed on test."""
    return (Line(quantity, "train", "train"), Line(quantity, "test", "test", (0, (4, 1.5))))


def averaged(quantity: str) -> tuple[Line, ...]:
    """A quantity of the batches (pale), of the raw weights, and of their average."""
    average = Line(f"{quantity}_ema", "averaged weights (EMA)", dash=":")
    batch = "cross_entropy" if quantity == "loss" else quantity  # the loss of a batch has terms that evaluation has not
    return (Line(batch, "batch", "batch"), Line(quantity, "raw weights"), average)


def _title(quantity):
    label = CATALOGUE[quantity].label
    return label[0].upper() + label[1:]


def _guessed(name):
    """A quantity of guesses, of the batch and of a sample at fixed weights."""
    return (Line(name, "batch", "batch"), Line(name, "at fixed weights", "unlabelled_selected"))


ACCURACY = Panel("Accuracy", lines("accuracy"))
LIMITS = "Dashed black: limits at neural collapse"


def _pair(name):
    """A quantity of pruned networks, in both scopes."""
    return (Line(name, "smallest of all"), Line(f"{name}_layerwise", "of each layer", dash=(0, (4, 1.5))))


def _view(name, order="", bound=False):
    """A quantity of two views: of projections, their features, and embeddings, and its lower bound."""
    found = (
        Line(f"{name}{order}", "projections", "test"),
        Line(f"{name}_features{order}", "projections, of features", "test", (0, (1, 1.2))),
        Line(f"{name}_embedding{order}", "embeddings", "test", (0, (4, 1.5))),
    )
    lower = Line(f"{name}_bound", "projections, lower bound", "test", (0, (5, 1.5, 1, 1.5)))
    return (*found, lower) if bound else found


def _on_path(ending="", note=""):
    return tuple(
        Panel(f"{_title(name)}{note}", lines(f"{name}{ending}"), name == "loss")
        for name in ("accuracy", "loss", "mir", "hdr")
    )


FIGURES = {
    "compression_curves": Plan(
        "Accuracy and loss",
        "Cheong 2025, Figs. 1.1 and 3.1. Of the whole samples, with the network's weights after each epoch.",
        (Panel("Accuracy", splits("accuracy")), Panel("Loss", splits("loss"))),
        columns=2,
        task="compression",
        height=2.6,
    ),
    "layers": Plan(
        "Geometric compression of the layers",
        "Cheong 2025, Fig. 3.2: tr(S_W S_B^+) of every layer's output. The lower, the tighter are samples of one class "
        "around their mean, by the distances between the means.",
        (Panel("NC1: tr(S_W S_B^+)", splits("nc1@*"), True),),
        columns=1,
        task="compression",
        limits="",
        compared=True,
        height=3.4,
    ),
    "separation": Plan(
        "Law of equi-separation",
        "Cheong 2025, Fig. 3.4: Pearson's r of log tr(S_W S_B^+) and depth, over the layers. At -1 every layer "
        "compresses by the same factor (He and Su 2023).",
        (Panel("Pearson r of log NC1 and depth", splits("equi_separation"), bottom=-1.0),),
        columns=1,
        task="compression",
        limits="the same factor at every layer",
        compared=True,
        height=2.8,
    ),
    "usable": Plan(
        "Usable information in the layers",
        "Cheong 2025, Figs. 3.5 and 3.7: V-information by the network's own remaining layers, trained anew at each "
        "measurement: about the label (sufficiency), and about labels that tell the samples of a class apart "
        "(minimality; the more, the less was compressed). Held out: what the decoders of a split read of the other. "
        "Layers at the cap lie on one another.",
        (
            Panel("Sufficiency: I_V(h → y) (bits)", splits("sufficiency@*")),
            Panel("Minimality: I_V(h → Dec(x, Y)) (bits)", splits("minimality@*")),
            Panel("Sufficiency, held out (bits)", splits("sufficiency_held_out@*")),
        ),
        columns=1,
        task="compression",
        limits="log2(C), the most of even labels",
        compared=True,
        height=2.6,
    ),
    "cross_modal": Plan(
        "Images and the texts of their classes",
        "Song et al. 2024, Table 1. Mean cosine of an image with the text of its class, with all texts, and with the "
        "nearest other. CMA: matrix entropy of a class's images with its text, in units of ln n, mean over classes. "
        "MIR and HDR of images and the texts of their classes. Novel: classes whose names the prompt was not learnt "
        "with.",
        (
            ACCURACY,
            Panel(
                "Cosine of image and text",
                (
                    Line("class_similarity", "own class"),
                    Line("modal_similarity", "all classes"),
                    Line("hardest_similarity", "nearest other"),
                ),
            ),
            Panel("Cross-modal alignment (CMA)", lines("cma")),
            Panel("MIR and HDR", lines("mir", "hdr")),
        ),
        task="crossmodal",
        limits="",
    ),
    "grokking": Plan(
        "Grokking",
        "Song et al. 2024, Fig. 3b, seed by seed. Memorised: first evaluation with 99% of train right; generalised: "
        "first with 99% of test. MIR, HDR and entropies of the residual stream at the last position and the "
        "unembedding.",
        (
            Panel("Accuracy", splits("accuracy")),
            Panel("Loss", splits("loss"), True),
            Panel("MIR", splits("mir")),
            Panel("HDR", splits("hdr")),
            Panel("Entropy (nats)", (*splits("entropy_features"), Line("entropy_head_weights", "W", dash=":"))),
            Panel("Effective rank", splits("effective_rank_from_gram")),
            Panel("NC1", splits("nc1"), True),
            Panel("NC2 equal angles", splits("nc2_equiangularity")),
            Panel("NC3", splits("nc3")),
            Panel("NC4", splits("nc4")),
        ),
        x="step",
        task="grokking",
        each_run=True,
        limits="",
    ),
    "connectivity": Plan(
        "Networks on the line between two",
        "Song et al. 2024, Fig. 3c: (1 - w) h1 + w h2, on test. Batch statistics, where there are any, are "
        "interpolated like weights, or (second row) recomputed from training samples as the interpolated weights see "
        "them.",
        (*_on_path(), *_on_path("_recomputed", ", statistics recomputed")),
        columns=4,
        x="weight",
        limits="",
        compared=True,
    ),
    "pruning": Plan(
        "Networks without their smallest weights",
        "Song et al. 2024 (ICML), pruning, on test: matrices and kernels without so large a share of their weights, "
        "those of least magnitude of all together or of each layer. MIR and HDR between the features before and after, "
        "and of the pruned features with the pruned classifier.",
        (
            Panel("Accuracy", _pair("accuracy")),
            Panel("MIR, before and after", _pair("mir_features")),
            Panel("HDR, before and after", _pair("hdr_features")),
            Panel("H(features) (nats)", _pair("entropy_features")),
            Panel("MIR with the classifier", _pair("mir")),
            Panel("HDR with the classifier", _pair("hdr")),
        ),
        columns=3,
        x="sparsity",
        limits="",
        compared=True,
    ),
    "views": Plan(
        "Matrix mutual information and joint entropy of two views",
        "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Figs. 1 and 2. One fixed held-out batch, two "
        "views of each sample; their projections (for BYOL the prediction of one and the target's projection of the "
        "other), and the network's embedding, which has one width for all methods. Of features: of the correlation "
        "matrix, whose most is log D. "
        "Lower bounds by the spectral contrastive loss (Theorems 4.3 and 4.4), where they are above 0.",
        (
            Panel("MI of views (nats)", _view("view_mutual_information")),
            Panel("Joint entropy of views (nats)", _view("view_joint_entropy")),
            Panel("MI of views, order 2 (nats)", _view("view_mutual_information", "_alpha_2", True)),
            Panel("Joint entropy of views, order 2 (nats)", _view("view_joint_entropy", "_alpha_2", True)),
        ),
        columns=2,
        task="selfsup",
        limits="log n, the most",
        compared=True,
        height=2.6,
    ),
    "branches": Plan(
        "Divergence between the branches",
        "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Fig. 5: Jensen-Shannon divergences between "
        "the cosine Gram matrices of the two branches, in [0, log 2]. By eigenspaces: of the Nussbaum-Szkola pair, "
        "inferred, as the paper's definition was not at hand.",
        (
            Panel("Matrix JSD (nats)", lines("matrix_jsd")),
            Panel("Eigenspace JSD (nats)", lines("eigenspace_jsd")),
            Panel("Spectrum JSD (nats)", lines("spectrum_jsd")),
        ),
        columns=3,
        task="selfsup",
        compared=True,
        height=2.4,
    ),
    "ranks": Plan(
        "Effective rank during training",
        "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Fig. 4: exp H(G(Z)). RankMe is of the "
        "singular values of the embedding as it is (Garrido et al. 2023), LiDAR of several views of each sample of one "
        "held-out batch (Thilak et al. 2024); accuracy of a linear classifier that is "
        "trained beside the method and has no part in it.",
        (
            Panel("Effective rank of the embedding", splits("effective_rank_from_gram")),
            Panel("RankMe and LiDAR of the embedding", (*splits("rankme"), Line("lidar", "LiDAR, test", "test", ":"))),
            Panel(
                "Effective rank of the branches", lines("effective_rank_view1", "effective_rank_view2", split="test")
            ),
            Panel("Accuracy, online head", splits("accuracy_online")),
            Panel("Loss of the method, batch", (Line("loss_method", "batch", "batch"),)),
            Panel("Coding rate of the embedding", splits("coding_rate")),
        ),
        columns=3,
        task="selfsup",
        limits="",
        compared=True,
        height=2.4,
    ),
    "views_swept": Plan(
        "Two views at the end, against the swept hyper-parameter",
        "Over temperatures of SimCLR: Tan et al. 2024 (Information Flow in Self-Supervised Learning), Fig. 3.",
        (
            Panel("MI of views (nats)", _view("view_mutual_information")),
            Panel("Joint entropy of views (nats)", _view("view_joint_entropy")),
            Panel(
                "Effective rank of the branches", lines("effective_rank_view1", "effective_rank_view2", split="test")
            ),
            Panel("Accuracy, online head", splits("accuracy_online")),
        ),
        columns=2,
        x="swept",
        task="selfsup",
        limits="log n, the most",
        height=2.6,
    ),
    "entropy": Plan(
        "Matrix entropy",
        "Song et al. 2024, Fig. 2a. H(features) = H(G(Z)) of the L2-normalised features, H(W) = H(G(W)) of the "
        f"classifier's rows, in nats. {LIMITS}: log(C-1) for H(W), and for H(features) the value at the measured mean "
        "energy, which moves with the run.",
        (ACCURACY, Panel("Entropy (nats)", lines("entropy_features", "entropy_head_weights"))),
    ),
    "interplay": Plan(
        "Matrix mutual information and entropy difference",
        "Song et al. 2024, Fig. 3a. MIR = MI / min(H(f), H(V)) and HDR = |H(f) - H(V)| / max(H(f), H(V)) of the "
        f"features and their rows V = W[y] of the classifier. {LIMITS}, at the measured mean energy, and at zero for "
        "centred features.",
        (
            ACCURACY,
            Panel("MIR and HDR", lines("mir", "hdr")),
            Panel("MIR and HDR of centred features", (Line("mir_centered", "MIR"), Line("hdr_centered", "HDR"))),
        ),
    ),
    "collapse": Plan(
        "Neural collapse",
        "Papyan, Han and Donoho 2020: variability within classes (NC1), simplex ETF of class means and classifier "
        "(NC2), their alignment (NC3), mismatch with the nearest class mean (NC4); decomposition of the squared error "
        "as in Han, Papyan and Donoho 2022. Of the training samples unless named otherwise. "
        "Dashed limits are 0; the classifier's term of the squared error has none.",
        (
            Panel("Training loss", (Line("cross_entropy", "batch", "batch"), Line("loss", "whole sample")), True),
            Panel("Training error (%)", lines("error")),
            Panel("NC1: variability within classes", splits("nc1"), True),
            Panel("NC2: equal norms", (Line("nc2_equinorm", "class means"), Line("nc2_equinorm_head", "classifier"))),
            Panel(
                "NC2: equal angles",
                (Line("nc2_equiangularity", "class means"), Line("nc2_equiangularity_head", "classifier")),
            ),
            Panel("NC3: self-duality", lines("nc3")),
            Panel("NC4: nearest-mean mismatch", lines("nc4")),
            Panel(
                "Squared error, decomposed",
                (Line("mse_nc1", "NC1"), Line("mse_nc2_nc3", "NC2, NC3"), Line("mse_head", "classifier")),
                True,
            ),
        ),
        columns=4,
    ),
    "losses": Plan(
        "Loss and accuracy",
        "Unsmoothed. Batch: at logged steps, of the batch just trained on, the mean over seeds; raw weights and their "
        "exponential moving average: of the whole evaluation sample.",
        (Panel("Loss", averaged("loss"), True), Panel("Accuracy", averaged("accuracy"))),
    ),
    "theorem3": Plan(
        "Class means and classifier",
        "Song et al. 2024, Theorem 3: the pair of its statement, G(W) and the centred class means G(M). "
        f"{LIMITS}: log(C-1), C-1, the closed form of MIR, and 0.",
        tuple(
            Panel(_title(name), splits(name))
            for name in ("entropy_means", "effective_rank_means", "mir_means", "hdr_means")
        ),
        columns=4,
    ),
    "geometry": Plan(
        "Geometry of the features",
        "Mean energy: squared norm of the mean of the L2-normalised features. Effective rank: exp H(G(Z)). CDNV: "
        "Galanti et al. 2022. Davies-Bouldin: spread within clusters over distance between them.",
        (
            Panel("Mean energy", splits("mean_energy")),
            Panel("Effective rank", splits("effective_rank_from_gram")),
            Panel("CDNV", splits("cdnv"), True),
            Panel("Davies-Bouldin", splits("davies_bouldin")),
        ),
        columns=4,
    ),
    "bottleneck": Plan(
        "What fresh decoders read at the end, against beta",
        "Cheong 2025, eq. 1.5: the encoder minimises minimality - beta sufficiency. Read by decoders trained anew on "
        "the frozen encoder, minimality of other digits than those of the training.",
        (
            Panel("Sufficiency (bits)", splits("sufficiency@*")),
            Panel("Minimality (bits)", splits("minimality@*")),
        ),
        columns=2,
        x="swept",
        task="bottleneck",
        limits="log2(C), the most of even labels",
    ),
    "guesses": Plan(
        "Guesses for unlabelled samples",
        "Thin: of the batch just trained on, in its weak view. Thick: at fixed weights, of a sample without a random "
        "view, by the method's own mask. The threshold is of the largest probability (FlexMatch: the mean over "
        "classes), Dash's of the loss.",
        (
            Panel("Selected share", _guessed("mask_ratio"), bottom=0.0),
            Panel("Accuracy of the selected", _guessed("pseudo_accuracy_selected")),
            Panel("Accuracy of all guesses", _guessed("pseudo_accuracy")),
            Panel("Threshold", (Line("threshold", "probability", "batch"), Line("rho", "loss (Dash)", "batch"))),
        ),
        columns=4,
        task="semisup",
        limits="",
        compared=True,
    ),
    "semisup_error": Plan(
        "Test error, and the interplay of features and classifier",
        "The error of the raw weights and of their moving average, by which the field reports; MIR and HDR on test and "
        "of the unlabelled samples that the method selects (Song et al. 2024, Fig. 2, for few labels).",
        (
            Panel("Test error (%)", (Line("error", "raw", "test"), Line("error_ema", "average", "test", ":")), True),
            *(
                Panel(name.upper(), (Line(name, "test", "test"), Line(name, "selected", "unlabelled_selected", ":")))
                for name in ("mir", "hdr")
            ),
        ),
        columns=3,
        task="semisup",
        limits="",
        compared=True,
        height=2.8,
    ),
    "swept": Plan(
        "The last evaluation against the swept hyper-parameter",
        "Each point: the mean over seeds at the last evaluation. Over temperatures: Song et al. 2024, Figs. 2b and 2c.",
        (
            Panel("Accuracy", splits("accuracy")),
            Panel("Loss", splits("loss"), True),
            Panel("H(features) (nats)", splits("entropy_features")),
            Panel("Silhouette", splits("silhouette")),
            Panel("Davies-Bouldin", splits("davies_bouldin")),
            Panel("NC1", splits("nc1"), True),
            Panel("MIR", splits("mir")),
            Panel("HDR", splits("hdr")),
        ),
        columns=4,
        x="swept",
    ),
}
# What a task's own figures show: general figures over time with nothing else are left out for it.
SHOWN = {"compression": {"accuracy", "error", "loss", "cross_entropy"}}
COMPARED = ("accuracy", "loss", "nc1", "nc3", "mir", "hdr", "entropy_features", "entropy_head_weights")
COMPARISON = Plan(
    "Comparison",
    "Bands: 95% intervals of the mean over seeds. Limits that move with a run are dashed in its colour.",
    tuple(Panel(_title(name), lines(name), name in ("loss", "nc1")) for name in COMPARED),
    columns=4,
)
