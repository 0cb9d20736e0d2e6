"""Comparing partitions of particles: tables, matching, indices, chance levels, analysis of variance.

Labels are integers: groups from 0 on, -1 for a particle that is in none.
"""

from hpcsort.partitions.anova import Anova, analyse_variance
from hpcsort.partitions.chance import ChanceLevel, chance_jaccard, p_value
from hpcsort.partitions.contingency import contingency_table, group_sizes
from hpcsort.partitions.indices import adjusted_mutual_information, adjusted_rand_index, rand_index
from hpcsort.partitions.matching import Matching, intersect_groups, match_groups, matched_accuracy, purities

__all__ = [
    "Anova",
    "ChanceLevel",
    "Matching",
    "adjusted_mutual_information",
    "adjusted_rand_index",
    "analyse_variance",
    "chance_jaccard",
    "contingency_table",
    "group_sizes",
    "intersect_groups",
    "match_groups",
    "matched_accuracy",
    "p_value",
    "purities",
    "rand_index",
]
