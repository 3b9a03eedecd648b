"""The network file of the original repository; the code lives in ``infection_mt.models``."""

from infection_mt.models.multitask import MultiTaskResNet
from infection_mt.models.regressor import ResNetRegressor

__all__ = ["MultiTaskResNet", "ResNetRegressor"]
