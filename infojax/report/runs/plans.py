"""The figures of runs, as data: a figure of another paper is another `Plan`, not new code."""

from infojax.report.runs.plan import ACCURACY, Line, Panel, Plan, averaged, lines, splits, titled
from infojax.report.runs.task_plans import TASK_FIGURES

LIMITS = "Dashed black: limits at neural collapse"


def _pair(name):
    """A quantity of pruned networks, with the smallest weights chosen globally and per layer."""
    return (Line(name, "smallest of all"), Line(f"{name}_layerwise", "of each layer", dash=(0, (4, 1.5))))


def _on_path(ending="", note=""):
    return tuple(
        Panel(f"{titled(name)}{note}", lines(f"{name}{ending}"), name == "loss")
        for name in ("accuracy", "loss", "mir", "hdr")
    )


FIGURES = TASK_FIGURES | {
    "connectivity": Plan(
        "Linear paths between two networks",
        "Song et al. 2024, Fig. 3c: (1 - w) h1 + w h2, on test. Batch statistics, if any, are interpolated like "
        "weights, or (titles say so) recomputed from training samples for the interpolated weights.",
        (*_on_path(), *_on_path("_recomputed", ", statistics recomputed")),
        columns=2,
        x="weight",
        limits="",
        compared=True,
    ),
    "pruning": Plan(
        "Networks without their smallest weights",
        "Song et al. 2024 (ICML), pruning, on test: matrices and kernels with the given share of their weights set to "
        "zero, those of least magnitude overall or in each layer. MIR and HDR between the features before and after "
        "pruning, and between the pruned features and the pruned classifier.",
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
    "entropy": Plan(
        "Matrix entropy",
        "Song et al. 2024, Fig. 2a. H(features) = H(G(Z)) of the L2-normalised features, H(W) = H(G(W)) of the "
        f"classifier's rows, in nats. {LIMITS}: log(C-1) for H(W), and for H(features) the value at the measured mean "
        "energy, which varies with the run.",
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
        "(NC2), their alignment (NC3), mismatch with the nearest class mean (NC4). On the training samples unless "
        "stated otherwise. Dashed limits are 0.",
        (
            Panel("Training loss", (Line("cross_entropy", "batch", "batch"), Line("loss", "all samples")), True),
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
                note="The squared error is decomposed as in Han, Papyan and Donoho 2022; the classifier's term has no "
                "limit.",
            ),
        ),
        columns=3,
    ),
    "losses": Plan(
        "Loss and accuracy",
        "Unsmoothed. Batch: at logged steps, on the batch just trained on; raw weights and their exponential moving "
        "average: on the whole evaluation sample.",
        (Panel("Loss", averaged("loss"), True), Panel("Accuracy", averaged("accuracy"))),
        seeds="Batches: mean over seeds.",
    ),
    "theorem3": Plan(
        "Class means and classifier",
        "Song et al. 2024, Theorem 3: the pair of its statement, G(W) and the centred class means G(M). "
        f"{LIMITS}: log(C-1), C-1, the closed form of MIR, and 0.",
        tuple(
            Panel(titled(name), splits(name))
            for name in ("entropy_means", "effective_rank_means", "mir_means", "hdr_means")
        ),
        columns=3,
    ),
    "geometry": Plan(
        "Geometry of the features",
        "",
        (
            Panel(
                "Mean energy",
                splits("mean_energy"),
                note="Mean energy: squared norm of the mean of the L2-normalised features.",
            ),
            Panel("Effective rank", splits("effective_rank_from_gram"), note="Effective rank: exp H(G(Z))."),
            Panel("CDNV", splits("cdnv"), True, note="CDNV: Galanti et al. 2022."),
            Panel(
                "Davies-Bouldin",
                splits("davies_bouldin"),
                note="Davies-Bouldin: spread within clusters divided by the distance between them.",
            ),
        ),
        columns=3,
    ),
    "swept": Plan(
        "The last evaluation against the swept hyper-parameter",
        "",
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
        columns=3,
        x="swept",
        seeds="Each point: the mean over seeds.",
        swept={"temperature": "Song et al. 2024, Figs. 2b and 2c."},
    ),
}
# What a task's own figures show: general figures over time that add nothing to them are skipped for it.
SHOWN = {"compression": {"accuracy", "error", "loss", "cross_entropy"}}
COMPARED = ("accuracy", "loss", "nc1", "nc3", "mir", "hdr", "entropy_features", "entropy_head_weights")
COMPARISON = Plan(
    "Comparison",
    "Limits that vary with a run are dashed in its colour.",
    tuple(Panel(titled(name), lines(name), name in ("loss", "nc1")) for name in COMPARED),
    columns=3,
    seeds="Bands: 95% intervals of the mean over seeds.",
)
