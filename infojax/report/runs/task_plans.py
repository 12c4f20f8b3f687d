"""The figures of one task each: layers, grokking, cross-modal, self-supervised and semi-supervised learning."""

from infojax.report.runs.plan import ACCURACY, Line, Panel, Plan, lines, splits


def _guessed(name):
    """A quantity of the pseudo-labels, on the batch and on a sample at fixed weights."""
    return (Line(name, "batch", "batch"), Line(name, "at fixed weights", "unlabelled_selected"))


def _view(name, order="", bound=False):
    """A quantity of two views: of projections, their feature correlations, embeddings, and a lower bound."""
    found = (
        Line(f"{name}{order}", "projections", "test"),
        Line(f"{name}_features{order}", "projections, of features", "test", (0, (1, 1.2))),
        Line(f"{name}_embedding{order}", "embeddings", "test", (0, (4, 1.5))),
    )
    lower = Line(f"{name}_bound", "projections, lower bound", "test", (0, (5, 1.5, 1, 1.5)))
    return (*found, lower) if bound else found


TASK_FIGURES = {
    "compression_curves": Plan(
        "Accuracy and loss",
        "Cheong 2025, Figs. 1.1 and 3.1. On all samples, with the network's weights after each epoch.",
        (Panel("Accuracy", splits("accuracy")), Panel("Loss", splits("loss"))),
        columns=2,
        task="compression",
        height=2.6,
    ),
    "layers": Plan(
        "Geometric compression of the layers",
        "Cheong 2025, Fig. 3.2: tr(S_W S_B^+) of every layer's output. The lower it is, the tighter the samples of a "
        "class lie around their mean, relative to the distances between the means.",
        (Panel("NC1: tr(S_W S_B^+)", splits("nc1@*"), True),),
        columns=1,
        task="compression",
        limits="",
        compared=True,
        height=3.4,
    ),
    "separation": Plan(
        "Law of equi-separation",
        "Cheong 2025, Fig. 3.4: Pearson's r between log tr(S_W S_B^+) and depth, over the layers. At -1 every layer "
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
        "Cheong 2025, Figs. 3.5 and 3.7: V-information read by the network's own remaining layers, retrained at each "
        "measurement: about the label (sufficiency), and about labels that distinguish samples of the same class "
        "(minimality; the higher, the less was compressed). Held out: decoders trained on one split, measured on the "
        "other. Layers at the cap overlap.",
        (
            Panel("Sufficiency: I_V(h → y) (bits)", splits("sufficiency@*")),
            Panel("Minimality: I_V(h → Dec(x, Y)) (bits)", splits("minimality@*")),
            Panel("Sufficiency, held out (bits)", splits("sufficiency_held_out@*")),
        ),
        columns=1,
        task="compression",
        limits="log2(C), the maximum for balanced labels",
        compared=True,
        height=2.6,
    ),
    "cross_modal": Plan(
        "Images and the texts of their classes",
        "Song et al. 2024, Table 1. Mean cosine of an image with the text of its class, with all texts, and with the "
        "nearest other. CMA: matrix entropy of a class's images with its text, in units of ln n, mean over classes. "
        "MIR and HDR of images and the texts of their classes. Novel: classes whose names were not used to train the "
        "prompt.",
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
        "Song et al. 2024, Fig. 3b, seed by seed. Memorised: first evaluation with 99% accuracy on train; generalised: "
        "first with 99% on test. MIR, HDR and entropies of the residual stream at the last position and the "
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
    "views": Plan(
        "Matrix mutual information and joint entropy of two views",
        "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Figs. 1 and 2. One fixed held-out batch, two "
        "views of each sample; their projections (for BYOL the prediction of one and the target's projection of the "
        "other), and the network's embedding, whose width is the same for all methods. Of features: of the correlation "
        "matrix, whose maximum is log D. "
        "Lower bounds from the spectral contrastive loss (Theorems 4.3 and 4.4), where they are above 0.",
        (
            Panel("MI of views (nats)", _view("view_mutual_information")),
            Panel("Joint entropy of views (nats)", _view("view_joint_entropy")),
            Panel("MI of views, order 2 (nats)", _view("view_mutual_information", "_alpha_2", True)),
            Panel("Joint entropy of views, order 2 (nats)", _view("view_joint_entropy", "_alpha_2", True)),
        ),
        columns=2,
        task="selfsup",
        limits="log n, the maximum",
        compared=True,
        height=2.6,
    ),
    "branches": Plan(
        "Divergence between the branches",
        "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Fig. 5: Jensen-Shannon divergences between "
        "the cosine Gram matrices of the two branches, in [0, log 2]. Eigenspace JSD: of the Nussbaum-Szkola pair, "
        "inferred, as the paper's definition was not available.",
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
        "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Fig. 4: exp H(G(Z)). RankMe uses the singular "
        "values of the raw embedding (Garrido et al. 2023), LiDAR several views of each sample of one held-out batch "
        "(Thilak et al. 2024). The accuracy is of a linear classifier trained alongside the method, which it does not "
        "influence.",
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
        "",
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
        swept={"temperature": "Tan et al. 2024 (Information Flow in Self-Supervised Learning), Fig. 3, for SimCLR."},
        task="selfsup",
        limits="log n, the maximum",
        height=2.6,
    ),
    "bottleneck": Plan(
        "What newly trained decoders read at the end, against beta",
        "Cheong 2025, eq. 1.5: the encoder minimises minimality - beta sufficiency. Measured by decoders retrained on "
        "the frozen encoder; minimality with other digits than those used in training.",
        (
            Panel("Sufficiency (bits)", splits("sufficiency@*")),
            Panel("Minimality (bits)", splits("minimality@*")),
        ),
        columns=2,
        x="swept",
        task="bottleneck",
        limits="log2(C), the maximum for balanced labels",
    ),
    "guesses": Plan(
        "Pseudo-labels of unlabelled samples",
        "Thin: on the batch just trained on, in its weak view. Thick: at fixed weights, on a sample without random "
        "views, with the method's own mask. The threshold applies to the largest probability (FlexMatch: the mean over "
        "classes), Dash's to the loss.",
        (
            Panel("Selected share", _guessed("mask_ratio"), bottom=0.0),
            Panel("Accuracy of the selected", _guessed("pseudo_accuracy_selected")),
            Panel("Accuracy of all pseudo-labels", _guessed("pseudo_accuracy")),
            Panel("Threshold", (Line("threshold", "probability", "batch"), Line("rho", "loss (Dash)", "batch"))),
        ),
        columns=3,
        task="semisup",
        limits="",
        compared=True,
    ),
    "semisup_error": Plan(
        "Test error, and the interplay of features and classifier",
        "The error of the raw weights and of their moving average, which the field reports; MIR and HDR on test and on "
        "the unlabelled samples that the method selects (Song et al. 2024, Fig. 2, with few labels).",
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
}
