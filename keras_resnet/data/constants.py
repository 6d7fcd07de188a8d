"""Means, standard deviations and class names of the data sets."""

# Channel means and standard deviations of the training images, in pixel units (0..255).
# tests/data/test_datasets.py computes them again from the images.
CIFAR10_MEAN = (125.306918046875, 122.950394140625, 113.86538318359375)
CIFAR10_STD = (62.99321928, 62.08870764, 66.70489964)
NORMALIZATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
    "cifar100": ((129.3042, 124.0700, 112.4341), (68.1702, 65.3918, 70.4184)),
    "synthetic": ((126.75, 126.75, 126.75), (55.75, 55.75, 55.75)),
}
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain "
    "mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain "
    "plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm "
)
# In label order.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    "cifar100": tuple(_CIFAR100.split()),
    "synthetic": (
        "disc", "ring", "square", "frame", "triangle", "cross", "crescent", "bars", "columns",
        "checkers",
    ),
}  # fmt: skip
SYNTHETIC_CLASSES = CLASS_NAMES["synthetic"]
DATASETS = tuple(CLASS_NAMES)
VAL_SIZE = 5_000  # training images of each that are split off for validation
