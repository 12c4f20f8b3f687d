"""Meta Pseudo Labels: a teacher that learns from what its guesses do to the student.

The student is the net "net", the teacher "teacher".
"""

import jax
import jax.numpy as jnp
import optax

from infojax.objectives.contract import Aux, State
from infojax.objectives.nets import Nets, descend
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, guessed, hard, joint, judged, masked

SIGNS = {"theory": 1.0, "released": -1.0}


@objective
class MPL(SemiSupervised):
    """The student learns the teacher's guesses on the strong view; the teacher by CE + UDA + feedback CE(guess).

    A step, with the optimisers "main" (student) and "teacher":
      1. the teacher's guesses y on the strong view, hard;
      2. the student descends on CE(z_student(strong), y);
      3. feedback h = CE_old - CE_new, how much that lowered the student's labelled loss, less its moving average;
      4. the teacher descends on CE(labelled) + ramp UDA(weak, strong) + h CE(z_teacher(strong), y).
    With soft labels the last term has no gradient, as in the published code: labels are hard here.

    Attributes:
      labels: "argmax", or "sampled" from the teacher's probabilities.
      sign: "theory" as above; "released": CE_new - CE_old, as the published code has it.
      baseline_rate: of the moving average of h.
      wait: steps before the student begins.
      uda_weight, threshold, temperature, uda_steps: the teacher's UDA term on tempered probabilities, and its ramp.
      label_smoothing: of both labelled losses of the teacher.
    References:
      Pham et al. 2021; google-research/meta_pseudo_labels.
    """

    labels: str = "argmax"
    sign: str = "theory"
    baseline_rate: float = 0.01
    wait: int = 0
    uda_weight: float = 8.0
    threshold: float = 0.6
    temperature: float = 0.7
    uda_steps: int = 5000
    label_smoothing: float = 0.15

    guessing = "teacher"

    def init(self, key, ctx):
        """The moving average of the feedback."""
        return jnp.zeros(())

    def selected(self, state: State, logits: jax.Array) -> jax.Array:
        """Those of the teacher's UDA term; the student learns all guesses."""
        return jnp.max(jax.nn.softmax(logits / self.temperature), -1) >= self.threshold

    def draws(self, key, batch, ctx):
        """Gumbel noise (unlabelled samples, C), which turns an argmax of the teacher's logits into a sample."""
        return jax.random.gumbel(key, (self.batch_size * self.ratio, ctx.facts.num_classes))

    def optimise(self, state, constants, batch, draws, key, ctx):
        labelled, rows = batch["labelled"], batch["unlabelled"]
        nets = Nets(state, constants, key, ctx)
        strong = joint(nets, labelled.views["weak"], rows.views["weak"], rows.views["strong"], name="teacher")[2].logits
        guess = jnp.argmax(strong + draws if self.labels == "sampled" else strong, -1)

        def student(nets, state, constants, batch, draws, ctx):
            learnt, known = joint(nets, rows.views["strong"], labelled.views["weak"])
            return hard(learnt.logits, guess), Aux(metrics={"old": hard(known.logits, labelled.labels)})

        begun = state.step >= self.wait
        after, found = descend(student, state, constants, batch, draws, key, ctx, scale=self.lr_scale)
        after = jax.tree.map(lambda new, old: jnp.where(begun, new, old), after, state)
        new = Nets(after, constants, key, ctx)("net", labelled.views["weak"])  # its running statistics are not kept
        feedback = SIGNS[self.sign] * jnp.where(begun, found["old"] - hard(new.logits, labelled.labels), 0)
        average = state.method + self.baseline_rate * (feedback - state.method)

        def teacher(nets, state, constants, batch, draws, ctx):
            views = labelled.views["weak"], rows.views["weak"], rows.views["strong"]
            known, weak, strong = (output.logits for output in joint(nets, *views, name="teacher"))
            target = optax.smooth_labels(jax.nn.one_hot(labelled.labels, known.shape[1]), self.label_smoothing)
            supervised = jnp.mean(optax.softmax_cross_entropy(known, target))
            soft = jax.nn.softmax(jax.lax.stop_gradient(weak) / self.temperature)
            mask = self.selected(state, jax.lax.stop_gradient(weak))
            uda = masked(mask, optax.softmax_cross_entropy(strong, soft))
            warm = jnp.minimum(state.step / self.uda_steps, 1) if self.uda_steps else 1.0
            value = supervised + self.uda_weight * warm * uda + (feedback - average) * hard(strong, guess)
            metrics = {"supervised_loss": supervised, "unsupervised_loss": uda}
            return value, Aux(average, metrics | judged(rows, guessed(weak)[2], mask))

        after, metrics = descend(teacher, after, constants, batch, draws, key, ctx, optimizer="teacher")
        kept = {name: value for name, value in metrics.items() if name not in ("loss", "grad_norm")}
        measured = {"loss": found["loss"], "grad_norm": found["grad_norm"], "teacher_loss": metrics["loss"]}
        return after, kept | measured | {"feedback": feedback, "student_labelled_loss": found["old"]}
