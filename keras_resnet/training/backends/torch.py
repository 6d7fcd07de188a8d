"""PyTorch: a Mac's GPU, and one NVIDIA GPU.

Keras refuses more than one step per execution here, and torch.compile takes minutes to begin.
"""

import keras
import torch

from keras_resnet.training import cpu
from keras_resnet.training.backends import Backend, Hardware


class Torch(Backend):
    def hardware(self) -> Hardware:
        # Keras takes mps, else cuda, else the CPU, unless KERAS_TORCH_DEVICE says otherwise.
        device = keras.ops.zeros(()).device
        match device.type:
            case "cuda":
                major, _ = torch.cuda.get_device_capability(device)
                name = torch.cuda.get_device_name(device)
                return Hardware("GPU", name, major, torch.cuda.device_count())
            case "mps":
                return Hardware("MPS", "the Mac's GPU")
            case "cpu":
                return Hardware("CPU", cpu.cpu_name())
        return Hardware(device.type.upper(), str(device))


BACKEND = Torch()
