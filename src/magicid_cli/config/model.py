"""The settings of the video model and of how it is held on this machine."""

from dataclasses import dataclass

from magicid_cli.config.declared import setting


@dataclass(frozen=True)
class ModelSettings:
    """Which video model, and where it runs."""

    name: str = setting("hunyuan-video", "Video model, a name of the catalog", flag="--model")
    dtype: str = setting(
        "auto",
        "Number type of the frozen base; auto is bfloat16 on a GPU and float32 on a CPU",
        flag="--dtype",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = setting(
        "auto",
        "Device; auto takes the GPU if there is one",
        flag="--device",
        choices=("auto", "cuda", "cpu"),
        result=False,
    )
    base: str = setting(
        "full",
        "How the frozen base is stored: full, or in fewer bytes and with other numbers; fp8-products also computes so",
        flag="--base",
        choices=("full", "fp8", "int8", "nf4", "fp8-products"),
    )
    memory_plan: str = setting(
        "auto",
        "What is kept where on a GPU; auto takes the first plan that fits its free memory, largest first",
        flag="--memory-plan",
        choices=("auto", "80gb", "48gb", "24gb"),
        result=False,
    )
    attention: str = setting(
        "auto",
        "Attention kernel; auto takes the fastest that the machine accepts",
        flag="--attention",
        choices=("auto", "cudnn", "flash-3", "flash-2", "torch-flash", "torch-efficient", "math"),
        result=False,
    )
    compile: bool = setting(
        False, "Compile the repeated blocks: minutes at the start, then faster steps", flag="--compile", result=False
    )
    offline: bool = setting(False, "Use only weights that are already in the cache", flag="--offline", result=False)
