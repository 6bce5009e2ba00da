"""The loop of a run, from its first missing step to the last, and the choice of the adapter that stays."""

from ..errors import LabError
from ..models.loading import ran_out
from ..printing import say
from .resume import load_adapter, save
from .run_folders import checkpoints
from .runs import Run
from .trainer import Trainer
from .validation import is_due, is_over


def train(trainer: Trainer, run: Run, identity: dict, validation, on_step, progress: bool) -> None:
    """The loop from the first missing step to the last."""
    import sys

    from tqdm import tqdm

    steps = run.recipe.steps
    bar = tqdm(total=steps, initial=len(run.history), disable=not progress, file=sys.stdout, unit="step", ncols=90)
    try:
        for step in range(len(run.history), steps):
            row = trainer.take_step(step)
            run.history.append(row)
            trainer.check_moves(row)
            if due := is_due(row["step"], run.recipe):
                row["validation_loss"] = trainer.validation_loss(validation)
            over = is_over(run.history, run.recipe)
            if over or row["step"] % run.recipe.checkpoint_every == 0 or (due and run.recipe.keeps_best):
                save(trainer, run, identity)
            held_out = f" (validation {row['validation_loss']:.3f})" if due else ""
            speed = f"{row['tokens'] / row['seconds']:.0f} tokens/s"
            bar.set_postfix_str(f"loss {row['loss']:.3f}{held_out}, {speed}", refresh=False)
            bar.update()
            if on_step and trainer.accelerator.is_main_process:
                on_step(run.history)
            if over:
                if row["step"] < steps and trainer.accelerator.is_main_process:
                    say(f"\nStopped after step {row['step']}: {run.recipe.patience} times in a row the validation "
                          "loss was not lower than before.")
                break
    except KeyboardInterrupt:
        saved = checkpoints(run.output_dir)
        if saved:
            done = int(saved[-1].name.removeprefix("checkpoint-"))
            say(f"\nInterrupted. Steps 1 to {done} are saved in {run.output_dir}: run the same cell again to go on, "
                  "or the same command.")
        else:
            say("\nInterrupted before the first checkpoint. Run the same cell again to start over, or the "
                  "same command.")
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise LabError(f"The memory ran out in step {len(run.history) + 1} ({error}). {trainer.save_memory}") from error
    finally:
        bar.close()


def take_best(run: Run, main: bool) -> None:
    """Put the adapter with the lowest validation loss on the model, from its checkpoint."""
    found = [path for path in checkpoints(run.output_dir) if int(path.name.rpartition("-")[2]) == run.best_step]
    if not found:
        raise LabError(
            f"checkpoint-{run.best_step:06d}, of the lowest validation loss, is no longer in {run.output_dir}. Put it "
            "back, or pass resume=False to train again (the old run is kept in `previous/`)."
        )
    load_adapter(run.model, found[0])
    if main and run.best_step < len(run.history):
        loss = run.history[run.best_step - 1]["validation_loss"]
        say(f"The adapter of step {run.best_step} is kept, of the lowest validation loss ({loss:.3f}).")
