"""Which nets there are: depths, kinds and shortcuts. Without Keras, which is slow to import."""

from keras_resnet.errors import UserError, integer

MODELS = ("resnet", "plain")
SHORTCUTS = ("zeropad", "projection", "projection-all", "zeropad-maxpool")
PADDINGS = ("end", "split")  # where a zeropad shortcut has its zeros; ours: at the end
PAPER_DEPTHS = (20, 32, 44, 56, 110, 1202)
DEEPEST = PAPER_DEPTHS[-1]
# Test errors of the residual nets on CIFAR-10 in percent: He et al. 2015, table 6; for 110 layers best of
# 5 and mean +- std.
PAPER_ERRORS = {
    20: "8.75", 32: "7.51", 44: "7.17", 56: "6.97", 110: "6.43 best, 6.61 ± 0.16", 1202: "7.93",
}  # fmt: skip


def blocks_per_stage(depth: int) -> int:
    """n of the paper's depth = 6n + 2. Raises ValueError for any other; the message names the nearest two.

    The deepest is the paper's 1202: `nets.resnet.allow_deep_graphs` is measured with it.
    """
    depth = integer("depth", depth)
    if 8 <= depth <= DEEPEST and depth % 6 == 2:
        return (depth - 2) // 6
    below = min(max(8, (depth - 2) // 6 * 6 + 2), DEEPEST - 6)
    above = below + 6 if depth > 8 else 14
    raise UserError(
        f"`depth` must be 6n+2, 8 to {DEEPEST} ({', '.join(map(str, PAPER_DEPTHS))}). "
        f"Received: depth={depth}; nearest: {below}, {above}"
    )
