"""Every reported quantity, listed once: its names, its definition, its limit at collapse, and where it is shown.

Plain data. Tables, figures, JSON and pages choose from `CATALOGUE`; none of them keeps a table of its own.
"""

from typing import NamedTuple

ENTROPY, COLLAPSE, HEAD = "Entropy and rank", "Neural collapse", "Head and information"
TRAINING, USABLE, PATHS, OTHER = "Training", "Usable information", "Paths and pruning", "Other"
VIEWS = "Two views"
GROUPS = (ENTROPY, COLLAPSE, HEAD, TRAINING, USABLE, VIEWS, PATHS, OTHER)  # in the order of a table


class Measure(NamedTuple):
    """A quantity.

    Attributes:
      name: in reports and in the rows of runs.
      label: in legends and in tables of runs; "" to use the name.
      group: the heading it is listed under, one of GROUPS.
      convention: its definition in `infojax.analyze`; "" for quantities that only runs measure.
      limit: value at collapse, the name of the quantity that holds it, or "" if there is none.
      unit: "nats", "bits", "%", or "" for a dimensionless number.
      needs: its inputs, out of "features", "labels", "head" and "prompts" (of rows that are tokens); () for
        quantities that only runs measure.
      family: measures computed on the same subset of rows where not all fit: "spectrum", "interplay" (of the
        features with their head rows), "silhouette", or "".
      colour: index of the palette: 0 features, 1 head, 2 accuracy, 3 features with head, 4 mismatch, 5 loss.
      of_a_simplex: whether the limit is that of a simplex of C classes, which needs C - 1 dimensions.
      column: its column heading where reports or layers are shown side by side.
      compared, summary, brief: its place, from 1, where reports are compared, in the last evaluation of a run on its
        page, and in the terminal; 0 to leave it out. Where reports are compared, later ones are dropped first.
      by_layer: whether it appears in the table of a run's layers.
    """

    name: str
    label: str = ""
    group: str = OTHER
    convention: str = ""
    limit: float | str = ""
    unit: str = ""
    needs: tuple[str, ...] = ()
    family: str = ""
    colour: int = 0
    of_a_simplex: bool = False
    column: str = ""
    compared: int = 0
    summary: int = 0
    brief: int = 0
    by_layer: bool = False

    @property
    def rank_limited(self) -> bool:
        """Whether it depends on the spectrum of the features, whose rank is at most the number of samples."""
        return self.family in ("spectrum", "interplay") and "features" in self.needs


_FEATURES = ("features",)
_PROMPTS = ("features", "prompts")
_CLASSES = ("features", "labels")
_ALL = ("features", "labels", "head")
_SPECTRUM = {"group": ENTROPY, "needs": _FEATURES, "family": "spectrum"}
_INTERPLAY = {"group": HEAD, "needs": _ALL, "family": "interplay"}
_GEOMETRY = {"group": COLLAPSE, "needs": _CLASSES, "limit": 0.0}
_OF_HEAD = {"group": COLLAPSE, "needs": _ALL, "limit": 0.0, "colour": 1}
_OF_VIEWS = {"group": VIEWS, "unit": "nats", "limit": "limit_view_information"}
_OF_FEATURES = {"group": VIEWS, "unit": "nats"}  # at most log D
_BITS = {"group": USABLE, "unit": "bits", "limit": "log2(C)"}

# In the order of the report.
CATALOGUE = {
    measure.name: measure
    for measure in (
        Measure(
            "entropy_features", "H(features)", convention="H(G(Z)), rows L2-normalised, not centred, nats",
            limit="limit_entropy_features", unit="nats", column="entropy", compared=1, summary=5, brief=3, **_SPECTRUM,
        ),
        Measure(
            "entropy_features_centered", convention="as entropy_features, the feature mean subtracted first",
            unit="nats", **_SPECTRUM,
        ),
        Measure(
            "matrix_entropy_alpha_0.5", convention="Renyi entropy of order 0.5 of G(Z)/N, nats", unit="nats",
            **_SPECTRUM,
        ),
        Measure(
            "matrix_entropy_alpha_2", convention="Renyi entropy of order 2 of G(Z)/N, nats", unit="nats", **_SPECTRUM
        ),
        Measure(
            "matrix_entropy_alpha_5", convention="Renyi entropy of order 5 of G(Z)/N, nats", unit="nats", **_SPECTRUM
        ),
        Measure(
            "effective_rank", convention="exp entropy of the singular values of Z as it is (Roy & Vetterli)",
            column="eff. rank", compared=2, **_SPECTRUM,
        ),
        Measure(
            "effective_rank_from_gram", "effective rank",
            convention="exp H(G(Z)): squared singular values of the normalised rows", limit="limit_effective_rank",
            summary=15, **_SPECTRUM,
        ),
        Measure("rankme", convention="as effective_rank with eps = 1e-7 (RankMe)", **_SPECTRUM),
        Measure("stable_rank", convention="||Z||_F^2 / ||Z||_2^2", column="st. rank", compared=10, **_SPECTRUM),
        Measure("srank", convention="least k with s_1 + ... + s_k >= 0.99 sum s, Z as it is (Kumar)", **_SPECTRUM),
        Measure("approximate_rank", convention="as srank of s^2: 99 % of the variance about zero", **_SPECTRUM),
        Measure(
            "covariance_rank", "effective rank of the covariance",
            convention="exp entropy of the eigenvalues l of the covariance (reptrix)", **_SPECTRUM,
        ),
        Measure(
            "participation_ratio", "participation ratio", convention="(sum l)^2 / sum l^2 of the covariance",
            **_SPECTRUM,
        ),
        Measure(
            "alpha_req_alpha", "alpha-ReQ", convention="exponent of l_i ~ i^-alpha, i = 11 to 100, of the covariance",
            **_SPECTRUM,
        ),
        Measure("alpha_req_r2", "alpha-ReQ, R^2", convention="of the fit of alpha_req_alpha", **_SPECTRUM),
        Measure(
            "coding_rate", convention="log det(I + G/D), form 'code', mu = 1, nats", unit="nats", **_SPECTRUM
        ),
        Measure(
            "prompt_entropy", "prompt entropy", ENTROPY,
            "mean over prompts of H of their tokens, centred within the prompt and L2-normalised, nats", unit="nats",
            column="prompt H", compared=13, needs=_PROMPTS,
        ),
        Measure(
            "prompt_entropy_std", "prompt entropy, std", ENTROPY, "std over prompts of the same, with P - 1",
            unit="nats", needs=_PROMPTS,
        ),
        Measure(
            "dataset_entropy", "data set entropy", ENTROPY,
            "H of the Gram matrix of the prompts' mean centred unit rows, nats", unit="nats", needs=_PROMPTS,
        ),
        Measure(
            "joint_entropy", convention="H(G(Z) o G(V)), V = head row of each label, nats", unit="nats", **_INTERPLAY
        ),
        Measure(
            "mutual_information", convention="H(G(Z)) + H(G(V)) - H(G(Z) o G(V)), nats", unit="nats", **_INTERPLAY
        ),
        Measure(
            "mir", "MIR", convention="mutual information / min(H(G(Z)), H(G(V))); depends on n", limit="limit_mir",
            colour=3, column="MIR", compared=4, summary=3, brief=5, **_INTERPLAY,
        ),
        Measure(
            "hdr", "HDR", convention="|H(G(Z)) - H(G(V))| / max of both", limit="limit_hdr", colour=4, column="HDR",
            compared=5, summary=4, brief=6, **_INTERPLAY,
        ),
        Measure(
            "joint_entropy_centered", convention="as joint_entropy, the feature mean subtracted first", unit="nats",
            **_INTERPLAY,
        ),
        Measure(
            "mutual_information_centered", convention="as mutual_information, the feature mean subtracted first",
            unit="nats", **_INTERPLAY,
        ),
        Measure(
            "mir_centered", "MIR, centred", convention="as mir, the feature mean subtracted first",
            limit="limit_mir_centered", colour=3, **_INTERPLAY,
        ),
        Measure(
            "hdr_centered", "HDR, centred", convention="as hdr, the feature mean subtracted first",
            limit="limit_hdr_centered", colour=4, **_INTERPLAY,
        ),
        Measure(
            "mean_energy", "mean energy", ENTROPY,
            "s = ||mean unit row||^2; the limits at s = 0 need centred features", needs=_FEATURES,
        ),
        Measure(
            "entropy_head", group=HEAD, convention="H(G(V)), V = head row of each label, nats", unit="nats",
            needs=("labels", "head"), family="interplay",
        ),
        Measure(
            "entropy_head_weights", "H(W)", HEAD, "H(G(W)), the head's own rows, nats", "log(C-1)", "nats", ("head",),
            colour=1, of_a_simplex=True, summary=6, brief=4,
        ),
        Measure(
            "nc1", "NC1", convention="thesis: tr(S_W S_B^+), classes weighted by n_c/N about the sample mean",
            column="NC1", compared=3, summary=7, brief=7, by_layer=True, **_GEOMETRY,
        ),
        Measure("nc1_papyan", convention="S_B unweighted about the mean of class means", **_GEOMETRY),
        Measure("nc1_tding1", convention="S_B unweighted about the sample mean, divided by C", **_GEOMETRY),
        Measure("nc1_rhubarbwu", convention="nc1_papyan divided by C", **_GEOMETRY),
        Measure(
            "nc1_equi_separation", convention="mean class covariance; S_B unweighted about the sample mean",
            **_GEOMETRY,
        ),
        Measure("nc1_trace_quotient", convention="tr S_W / tr S_B, S_B unweighted", **_GEOMETRY),
        Measure(
            "nc2_equinorm", "NC2 equinorm, means",
            convention="std / mean of the norms of the centred class means (std with C - 1)", summary=8, **_GEOMETRY,
        ),
        Measure(
            "nc2_equiangularity", "NC2 equiangularity, means",
            convention="mean |cos + 1/(C-1)| of the centred class means", of_a_simplex=True, summary=9, **_GEOMETRY,
        ),
        Measure(
            "nc2_etf_distance", "NC2 ETF distance, means",
            convention="Frobenius distance of their normalised Gram to the simplex ETF", of_a_simplex=True,
            column="NC2 etf", compared=6, **_GEOMETRY,
        ),
        Measure("nc2_equinorm_head", "NC2 equinorm, classifier", convention="as nc2_equinorm, head rows", **_OF_HEAD),
        Measure(
            "nc2_equiangularity_head", "NC2 equiangularity, classifier", convention="as nc2_equiangularity, head rows",
            of_a_simplex=True, **_OF_HEAD,
        ),
        Measure(
            "nc2_etf_distance_head", "NC2 ETF distance, classifier", convention="as nc2_etf_distance, head rows",
            of_a_simplex=True, **_OF_HEAD,
        ),
        Measure(
            "nc3", "NC3", HEAD, "papyan: ||W/|W| - M/|M|||_F^2", 0.0, needs=_ALL, colour=3, column="NC3", compared=7,
            summary=10,
        ),
        Measure("nc3_etf", "", HEAD, "distance of the normalised W M^T to the simplex ETF", 0.0, needs=_ALL, colour=3),
        Measure(
            "nc4", "NC4", HEAD, "share of samples where head (with bias) and nearest class centre disagree", 0.0,
            needs=_ALL, colour=4, column="NC4", compared=8, summary=11,
        ),
        Measure(
            "cdnv", "CDNV", convention="mean over pairs (v_c + v_c') / (2 |mu_c - mu_c'|^2)", column="CDNV",
            compared=9, summary=12, **_GEOMETRY,
        ),
        Measure(
            "davies_bouldin", "Davies-Bouldin",
            convention="mean of the worst (s_c + s_c')/|mu_c - mu_c'|; scikit-learn's where no means coincide",
            summary=13, **_GEOMETRY,
        ),
        Measure(
            "silhouette", "silhouette", COLLAPSE, "scikit-learn's silhouette_score, Euclidean", 1.0, needs=_CLASSES,
            family="silhouette", summary=14, brief=8,
        ),
        # Weight matrices.
        Measure("spectral_norm", "spectral norm", ENTROPY, column="norm", compared=11),
        Measure("frobenius_norm", "Frobenius norm", ENTROPY, column="F norm", compared=12),
        # Quantities that only runs and monitors measure.
        Measure("numerical_rank", "numerical rank", ENTROPY),
        Measure("dormant_ratio", "share of dormant units", ENTROPY, colour=4),
        Measure("feature_std", "std of unit rows, times sqrt(D)", ENTROPY),
        Measure("uniformity", "uniformity", ENTROPY, colour=1),
        Measure("accuracy", "accuracy", TRAINING, colour=2, summary=1, brief=1),
        Measure("error", "error (%)", TRAINING, unit="%", colour=2),
        Measure("accuracy_zero_shot", "accuracy, zero-shot CLIP", TRAINING, colour=0, summary=32, brief=23),
        Measure("accuracy_logistic", "accuracy, logistic regression", TRAINING, colour=2, summary=25, brief=17),
        Measure("accuracy_knn_20", "accuracy, 20 neighbours", TRAINING, colour=2, summary=26, brief=18),
        Measure("accuracy_knn_200", "accuracy, 200 neighbours", TRAINING, colour=2, summary=27, brief=19),
        Measure("accuracy_knn_euclidean_20", "accuracy, 20 neighbours, euclidean", TRAINING, colour=2, summary=28),
        Measure("error_ema", "error of the averaged weights (%)", TRAINING, unit="%", colour=2),
        Measure("mask_ratio", "share of unlabelled samples selected", TRAINING, colour=0),
        Measure("pseudo_accuracy", "accuracy of all pseudo-labels", TRAINING, colour=2),
        Measure("pseudo_accuracy_selected", "accuracy of the selected pseudo-labels", TRAINING, colour=3),
        Measure("threshold", "threshold", TRAINING, colour=1),
        Measure("rho", "threshold of the loss (Dash)", TRAINING, colour=4),
        Measure("loss", "loss", TRAINING, colour=5, summary=2, brief=2),
        Measure("cross_entropy", "cross-entropy", TRAINING, unit="nats", colour=5),
        Measure(
            "entropy_means", "H(class means)", COLLAPSE, limit="log(C-1)", unit="nats", of_a_simplex=True
        ),
        Measure(
            "effective_rank_means", "effective rank of class means", COLLAPSE, limit="C-1", of_a_simplex=True
        ),
        Measure(
            "mir_means", "MIR of class means", COLLAPSE, limit="collapsed MIR", colour=3, of_a_simplex=True
        ),
        Measure("hdr_means", "HDR of class means", COLLAPSE, limit=0.0, colour=4),
        Measure("mse_nc1", "MSE: NC1", COLLAPSE, limit=0.0),
        Measure("mse_nc2_nc3", "MSE: NC2, NC3", COLLAPSE, limit=0.0, colour=3),
        Measure("mse_head", "MSE: classifier", COLLAPSE, limit=0.0, colour=1),
        Measure("equi_separation", "equi-separation r", COLLAPSE, limit=-1.0),
        Measure("sufficiency", "sufficiency (bits)", colour=2, column="sufficiency", by_layer=True, **_BITS),
        Measure("minimality", "minimality (bits)", colour=3, column="minimality", by_layer=True, **_BITS),
        Measure("sufficiency_held_out", "sufficiency, held out (bits)", colour=2, **_BITS),
        Measure("class_similarity", "cosine with the own class's text", colour=2, summary=20, brief=13),
        Measure("modal_similarity", "cosine with the texts of all classes", colour=1, summary=21, brief=14),
        Measure("hardest_similarity", "cosine with the nearest other text", colour=4, summary=22),
        Measure("cma", "CMA, mean in units of ln n", colour=3, summary=23, brief=15),
        Measure("cma_sum", "CMA, sum over classes (nats)", colour=3, unit="nats"),
        Measure("harmonic_mean", "harmonic mean of base and novel", colour=2, summary=24, brief=16),
        Measure("accuracy_online", "accuracy, online head", TRAINING, colour=2, summary=29, brief=20),
        Measure("loss_online", "loss, online head", TRAINING, colour=5),
        Measure("loss_method", "loss of the method", TRAINING, colour=5),
        Measure("token_uniformity", "mean squared cosine of class tokens", VIEWS),
        # For the projections of two views (in BYOL the prediction of one and the target's projection of the other).
        Measure("lidar", "LiDAR", group=VIEWS),
        Measure("view_mutual_information", "MI of views", summary=30, brief=21, colour=3, **_OF_VIEWS),
        Measure("view_mutual_information_alpha_2", "MI of views, order 2", colour=3, **_OF_VIEWS),
        Measure("view_joint_entropy", "joint entropy of views", summary=31, brief=22, **_OF_VIEWS),
        Measure("view_joint_entropy_alpha_2", "joint entropy of views, order 2", **_OF_VIEWS),
        Measure("view_mutual_information_features", "MI of views, features", colour=3, **_OF_FEATURES),
        Measure("view_mutual_information_features_alpha_2", "MI of views, features, order 2", colour=3, **_OF_FEATURES),
        Measure("view_joint_entropy_features", "joint entropy of views, features", **_OF_FEATURES),
        Measure("view_joint_entropy_features_alpha_2", "joint entropy of views, features, order 2", **_OF_FEATURES),
        Measure("view_mutual_information_embedding", "MI of views, embedding", colour=3, **_OF_VIEWS),
        Measure("view_mutual_information_embedding_alpha_2", "MI of views, embedding, order 2", colour=3, **_OF_VIEWS),
        Measure("view_joint_entropy_embedding", "joint entropy of views, embedding", **_OF_VIEWS),
        Measure("view_joint_entropy_embedding_alpha_2", "joint entropy of views, embedding, order 2", **_OF_VIEWS),
        Measure("view_mutual_information_bound", "MI of views, lower bound", VIEWS, unit="nats", colour=4),
        Measure("view_joint_entropy_bound", "joint entropy of views, lower bound", VIEWS, unit="nats", colour=4),
        Measure("matrix_jsd", "matrix JSD of branches", VIEWS, unit="nats", colour=4),
        Measure("eigenspace_jsd", "eigenspace JSD of branches", VIEWS, unit="nats", colour=1),
        Measure("spectrum_jsd", "spectrum JSD of branches", VIEWS, unit="nats", colour=5),
        Measure("effective_rank_view1", "effective rank, view 1", VIEWS),
        Measure("effective_rank_view2", "effective rank, view 2", VIEWS, colour=1),
        Measure("mir_features", "MIR with the unpruned network", PATHS, colour=3),
        Measure("hdr_features", "HDR with the unpruned network", PATHS, colour=4),
        Measure("barrier_error", "barrier of error (%)", PATHS, unit="%", colour=2, summary=16, brief=9),
        Measure(
            "barrier_error_recomputed", "barrier of error (%), statistics recomputed", PATHS, unit="%", colour=2,
            summary=17, brief=10,
        ),
        Measure("barrier_loss", "barrier of loss", PATHS, colour=5, summary=18, brief=11),
        Measure(
            "barrier_loss_recomputed", "barrier of loss, statistics recomputed", PATHS, colour=5, summary=19, brief=12
        ),
    )
}  # fmt: skip
LABELLED = tuple(name for name, measure in CATALOGUE.items() if measure.label)  # shown in figures and tables of runs


def measure_of(quantity: str) -> Measure:
    """The entry of a quantity, possibly measured at a layer ("nc1@layer1"); a bare entry with its name if unknown."""
    name, _, layer = quantity.partition("@")
    found = CATALOGUE.get(name, Measure(name))
    label = found.label or name
    return found._replace(label=f"{label} of {layer}" if layer else label)


def shown_in(place: str) -> tuple[str, ...]:
    """The names ranked in the field `place`: "compared", "summary" or "brief"."""
    ranks = {name: getattr(measure, place) for name, measure in CATALOGUE.items()}
    return tuple(sorted(filter(ranks.get, ranks), key=ranks.get))
