"""PyTorch: a Mac's GPU, and one NVIDIA GPU, without torch.compile, which takes minutes to begin."""

import keras
import torch

from keras_resnet.training import cpu
from keras_resnet.training.backends import Backend, Hardware


class Torch(Backend):
    def hardware(self) -> Hardware:
        # Keras takes mps, else cuda, else the CPU, unless KERAS_TORCH_DEVICE says otherwise.
        device = keras.ops.zeros(()).device
        if device.type == "cuda":
            major, _ = torch.cuda.get_device_capability(device)
            name = torch.cuda.get_device_name(device)
            return Hardware("GPU", name, major, torch.cuda.device_count())
        names = {"mps": "the Mac's GPU", "cpu": cpu.cpu_name()}
        return Hardware(device.type.upper(), names.get(device.type, str(device)))


BACKEND = Torch()
