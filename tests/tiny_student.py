"""Small students with batch norms that do something, shared by the tests of training and export."""

import torch
from earmark.train.mfcc import MfccSettings
from earmark.train.student import Student, StudentSettings

SHAPES = [
    StudentSettings(width=8, dilations=(1, 3), window=0.2),
    StudentSettings(width=12, dilations=(2,), kernel=5, stride=1, window=0.02),
    StudentSettings(width=8, dilations=(1,), kernel=2, stride=4, window=0.16),
    StudentSettings(width=8, dilations=(1, 2), stride=8, window=0.4),
    StudentSettings(width=8, dilations=(5, 1), stride=1, band_strides=(4, 2), window=0.1),
]


def make(shape: StudentSettings, features: MfccSettings | None = None) -> Student:
    """A student whose batch norms have statistics of their own."""
    torch.manual_seed(1)
    student = Student(5, shape, features or MfccSettings())
    with torch.no_grad():
        for norm in student.modules():
            if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()
    return student.eval()
