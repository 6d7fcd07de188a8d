"""Speed against PyTorch and stock Keras: `run.py`; against depth and batch size: `growth.py`."""
