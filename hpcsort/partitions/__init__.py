"""Comparing partitions of particles: tables, matching, indices, chance levels, covariates, calibration.

Labels are integers: groups from 0 on, -1 for a particle that is in none.
"""

from hpcsort.partitions.anova import (
    Anova,
    ClusteredAnova,
    Unevenness,
    analyse_variance,
    analyse_variance_clustered,
    measure_unevenness,
)
from hpcsort.partitions.association import Explanation, explain_groups, quantile_features
from hpcsort.partitions.calibration import (
    Reliability,
    agreement_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_diagram,
    split_temperature,
    tempered,
)
from hpcsort.partitions.chance import ChanceLevel, chance_jaccard, p_value
from hpcsort.partitions.contingency import contingency_table, group_sizes
from hpcsort.partitions.indices import adjusted_mutual_information, adjusted_rand_index, rand_index
from hpcsort.partitions.matching import Matching, intersect_groups, match_groups, matched_accuracy, purities
from hpcsort.partitions.multiple import benjamini_hochberg, holm
from hpcsort.partitions.views import compare_views, view_features

__all__ = [
    "Anova",
    "ChanceLevel",
    "ClusteredAnova",
    "Explanation",
    "Matching",
    "Reliability",
    "Unevenness",
    "adjusted_mutual_information",
    "adjusted_rand_index",
    "agreement_temperature",
    "analyse_variance",
    "analyse_variance_clustered",
    "benjamini_hochberg",
    "chance_jaccard",
    "compare_views",
    "contingency_table",
    "expected_calibration_error",
    "explain_groups",
    "fit_temperature",
    "group_sizes",
    "holm",
    "intersect_groups",
    "match_groups",
    "matched_accuracy",
    "measure_unevenness",
    "p_value",
    "purities",
    "quantile_features",
    "rand_index",
    "reliability_diagram",
    "split_temperature",
    "tempered",
    "view_features",
]
