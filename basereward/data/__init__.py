"""Datasets: files in, comparisons out, in a fixed order and with a reason for each row left out."""

from basereward.data.dataset import Dataset, FileDataset
from basereward.data.formats import read_comparisons
from basereward.data.native import NativeDataset
from basereward.data.trl import TRLDataset

__all__ = ["Dataset", "FileDataset", "NativeDataset", "TRLDataset", "read_comparisons"]
