"""Compile every kernel for GPUs, of which none is needed: what the interpreter takes, a GPU's compiler may reject."""

import sys
from itertools import product

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ccsd.distillation import loss_kernels
from ccsd.model import norm_kernels, pool_kernels, projection_kernels

KERNELS = {
    norm_kernels: ("_sums", "_statistics", "_apply", "_gradient_sums", "_gradient_statistics", "_gradient"),
    pool_kernels: ("_max_pool", "_max_pool_gradient"),
    projection_kernels: ("_project", "_project_gradient_features", "_project_gradient_matrix"),
    loss_kernels: ("_overlap", "_overlap_gradient", "_divergence", "_divergence_gradient"),
}
MAPS = {
    "x",
    "y",
    "dy",
    "dx",
    "added",
    "inner",
    "gradient",
    "logits",
    "teacher",
    "student",
    "dz",
    "ds",
    "rows",
    "features",
}
NUMBERS = {"out", "sums", "moments", "affine", "weight", "bias", "factors", "parameters", "target", "matrix", "parts"}
BYTES = {"taps"}
REALS = {"slope", "eps", "cold"}
CONSTANTS = {
    "HAS_ADDED": (False, True),
    "BLOCK_V": (64,),
    "BLOCK_C": (64,),
    "BLOCK_S": (64,),
    "BLOCK_G": (8,),
    "BLOCK": (2048,),
    "BLOCK_I": (64,),
    "BLOCK_O": (16,),
}
SMALL = {pool_kernels: {"BLOCK_V": (16,)}}


def type_of(name: str, maps: str) -> str:
    """Return the type of a kernel's argument."""
    if name in CONSTANTS:
        return "constexpr"
    if name in BYTES:
        return "*i8"
    return maps if name in MAPS else "*fp32" if name in NUMBERS else "fp32" if name in REALS else "i32"


def main() -> None:
    """Compile for Ampere and Hopper, for each type of the maps."""
    for (module, names), maps, capability in product(KERNELS.items(), ("*bf16", "*fp16", "*fp32"), (80, 90)):
        for name in names:
            kernel = getattr(module, name)
            signature = {argument: type_of(argument, maps) for argument in kernel.arg_names}
            values = CONSTANTS | SMALL.get(module, {})
            constants = {key: value for key, value in values.items() if key in signature}
            for chosen in product(*constants.values()):
                source = ASTSource(kernel, signature, constexprs=dict(zip(constants, chosen, strict=True)))
                compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
                sys.stdout.write(f"{name} {maps} {capability} {len(compiled.asm['cubin'])}\n")


if __name__ == "__main__":
    main()
