"""Families of class averages: similarity whatever rotation, shift and mirror, clustering, merging."""

from hpcsort.averages.cluster import Partition, choose_partition, pca_features, silhouettes
from hpcsort.averages.evidence import FamilyTest, judge_one_family
from hpcsort.averages.families import Family, make_families
from hpcsort.averages.kmeans import kmeans
from hpcsort.averages.merge import merge_averages, merged_poses
from hpcsort.averages.options import AveragesOptions
from hpcsort.averages.prepare import PreparedAverages, find_blank, prepare
from hpcsort.averages.program import cluster_averages, find_families
from hpcsort.averages.read import Averages, Particles, read_averages
from hpcsort.averages.similarity import Similarity, compare_all
from hpcsort.averages.ssim import local_moments, ssim
from hpcsort.averages.stability import cluster_stability
from hpcsort.averages.story import Findings

__all__ = [
    "Averages",
    "AveragesOptions",
    "Family",
    "FamilyTest",
    "Findings",
    "Particles",
    "Partition",
    "PreparedAverages",
    "Similarity",
    "choose_partition",
    "cluster_averages",
    "cluster_stability",
    "compare_all",
    "find_blank",
    "find_families",
    "judge_one_family",
    "kmeans",
    "local_moments",
    "make_families",
    "merge_averages",
    "merged_poses",
    "pca_features",
    "prepare",
    "read_averages",
    "silhouettes",
    "ssim",
]
