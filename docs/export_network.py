"""Save a PyTorch network as ONNX, with the metadata that cmbprep reads."""

import onnx
import torch


class Network(torch.nn.Module):
    """Placeholder: (1, 2, x, y, z) in, logits (1, 1, x, y, z) out."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv3d(2, 8, 3, stride=2, padding=1)
        self.up = torch.nn.ConvTranspose3d(8, 8, 2, stride=2)
        self.last = torch.nn.Conv3d(10, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        wide = torch.relu(self.down(image))
        return self.last(torch.cat([image, self.up(wide)], dim=1))


network = Network().eval()
# network.load_state_dict(torch.load("weights.pt", weights_only=True))
torch.onnx.export(
    network,
    (torch.zeros(1, 2, 64, 64, 64),),
    "microbleeds.onnx",
    input_names=["image"],
    output_names=["logits"],
    external_data=False,  # the weights go into the file
)
model = onnx.load("microbleeds.onnx")
onnx.helper.set_model_props(
    model,
    {
        "cmbprep.spacing_mm": "0.8,0.8,0.8",
        "cmbprep.channels": "magnitude,brain_mask",
        "cmbprep.normalisation": "percentile-brain(1,99)",
        "cmbprep.activation": "sigmoid",
        "cmbprep.threshold": "0.4",
        "cmbprep.definite": "0.7",
    },
)
onnx.save(model, "microbleeds.onnx")
