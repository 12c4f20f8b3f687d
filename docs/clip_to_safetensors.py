"""OpenAI's TorchScript files of CLIP (RN50.pt, ViT-B-16.pt, ...) as safetensors, for `infojax.models.clip.load`.

  python docs/clip_to_safetensors.py RN50.pt RN50.safetensors

Needs PyTorch, and only this script does. Weights keep their type (float16 for most) and OpenAI's names.
"""

import sys
from pathlib import Path


def main(source: str, target: str) -> None:
    import torch
    from safetensors.torch import save_file

    if Path(target).exists():
        sys.exit(f"{target} exists already; give another name")
    try:
        state = torch.jit.load(source, map_location="cpu").state_dict()
    except (RuntimeError, OSError, ValueError) as error:
        try:
            state = torch.load(source, map_location="cpu", weights_only=True)  # a plain state dict, as of open_clip
            state = state.get("state_dict", state)
        except Exception:
            sys.exit(f"{source} is no TorchScript archive or state dict: {str(error).splitlines()[0]}")
    state = {name.removeprefix("module."): tensor.contiguous().clone() for name, tensor in state.items()}
    save_file(state, target)
    print(f"{target}: {len(state)} tensors")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
