"""Datasets: files in, comparisons out, in a fixed order and with a reason for each row left out."""

from basereward.data.dataset import Dataset, FileDataset, place_of
from basereward.data.formats import read_comparisons
from basereward.data.native import NativeDataset
from basereward.data.trl import TRLDataset

__all__ = ["Dataset", "FileDataset", "NativeDataset", "TRLDataset", "place_of", "read_comparisons"]
