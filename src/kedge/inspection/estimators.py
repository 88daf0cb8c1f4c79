"""Table of the scikit-learn estimators that the walk knows, with each allowed attribute.

Every estimator here answers in time and memory that follow from its size and the rows. Neighbours,
kernels, text vectorizers, polynomials and all others run in a process.
"""

from __future__ import annotations

RULE = 1
"""Number of this table and of `operators`. A verdict with another number is renewed at the model's
next load."""

NUMBER, WORD, ARRAY, FIGURE, CLASSES, SETTING, PART, DICE, NOTHING = "nwafcspr0"
"""Kinds of attributes, in order:

- a number
- a word
- an array of numbers
- a number or such an array
- an array of numbers or words
- a plain value of any of these, nested
- something listed here, alone or in lists
- a random state, which no answer uses
- None
"""

COMMON = {"n_features_in_": NUMBER, "feature_names_in_": CLASSES, "_sklearn_output_config": SETTING}
"""Attributes that every estimator may hold."""

PARTS = frozenset(
    {
        "estimator",
        "estimators",
        "init",
        "regressor",
        "remainder",
        "steps",
        "transformer",
        "transformers",
    }
)
"""Constructor parameters that may hold estimators. All others hold settings."""

_LINEAR = "coef_:a intercept_:f n_iter_:s solver_:w dual_gap_:f"
_TREE = "n_outputs_:n classes_:c n_classes_:f max_features_:n tree_:p"
_FOREST = (
    "_n_samples:n n_outputs_:n classes_:c n_classes_:n _sample_weight:0 _n_samples_bootstrap:n "
    "estimator_:p estimators_:p oob_score_:n oob_decision_function_:a oob_prediction_:a"
)
_BOOSTED = (
    "classes_:c n_trees_per_iteration_:n n_classes_:n max_features_:n _loss:p init_:p estimators_:p"
    " train_score_:a _rng:r n_estimators_:n oob_improvement_:a oob_scores_:a oob_score_:n"
)
_HISTOGRAM = (
    "is_categorical_:0 _preprocessor:0 _is_categorical_remapped:0 _label_encoder:p classes_:c"
    " n_trees_per_iteration_:n _random_seed:n _feature_subsample_rng:r _n_features:n _loss:p"
    " do_early_stopping_:n _use_validation_data:n _bin_mapper:p _baseline_prediction:a"
    " _predictors:p _scorer:0 train_score_:a validation_score_:a"
)
_LOSS = (
    "closs:p link:p n_classes:n xp:0 device:0 approx_hessian:n constant_hessian:n interval_y_true:p"
    " interval_y_pred:p class_indexing_offsets:0 y_true_int:0 y_true_one_hot:0"
)
_NETWORK = (
    "_label_binarizer:p classes_:c n_outputs_:n _random_state:r n_iter_:n t_:n n_layers_:n"
    " out_activation_:w coefs_:s intercepts_:s _best_coefs:s _best_intercepts:s loss_curve_:s"
    " _no_improvement_count:n validation_scores_:s best_validation_score_:n best_loss_:n"
    " _optimizer:p loss_:n"
)
_OPTIMIZER = (
    "learning_rate_init:n learning_rate:n beta_1:n beta_2:n epsilon:n t:n ms:s vs:s "
    "lr_schedule:w momentum:n nesterov:n power_t:n velocities:s"
)

_BY_MODULE = {
    "sklearn.linear_model._logistic": {"LogisticRegression": f"classes_:c {_LINEAR}"},
    "sklearn.linear_model._base": {"LinearRegression": f"rank_:n singular_:a {_LINEAR}"},
    "sklearn.linear_model._ridge": {
        "Ridge": _LINEAR,
        "RidgeClassifier": f"_label_binarizer:p classes_:c {_LINEAR}",
    },
    "sklearn.linear_model._coordinate_descent": {"Lasso": _LINEAR, "ElasticNet": _LINEAR},
    "sklearn.linear_model._glm.glm": dict.fromkeys(
        ("PoissonRegressor", "GammaRegressor", "TweedieRegressor"), f"_base_loss:p {_LINEAR}"
    ),
    "sklearn.linear_model._huber": {"HuberRegressor": f"scale_:n outliers_:a {_LINEAR}"},
    "sklearn.linear_model._stochastic_gradient": dict.fromkeys(
        ("SGDClassifier", "SGDRegressor"),
        f"t_:n classes_:c _expanded_class_weight:a _loss_function_:p {_LINEAR}",
    ),
    "sklearn.svm._classes": dict.fromkeys(("LinearSVC", "LinearSVR"), f"classes_:c {_LINEAR}"),
    "sklearn.naive_bayes": {
        "GaussianNB": "classes_:c epsilon_:n theta_:a var_:a class_count_:a class_prior_:a",
    },
    "sklearn.dummy": {
        "DummyClassifier": (
            "_strategy:w sparse_output_:n n_outputs_:n classes_:c n_classes_:n class_prior_:a"
        ),
        "DummyRegressor": "n_outputs_:n constant_:a",
    },
    "sklearn.tree._classes": dict.fromkeys(
        (
            "DecisionTreeClassifier",
            "DecisionTreeRegressor",
            "ExtraTreeClassifier",
            "ExtraTreeRegressor",
        ),
        _TREE,
    ),
    "sklearn.ensemble._forest": dict.fromkeys(
        (
            "RandomForestClassifier",
            "RandomForestRegressor",
            "ExtraTreesClassifier",
            "ExtraTreesRegressor",
        ),
        _FOREST,
    ),
    "sklearn.ensemble._gb": dict.fromkeys(
        ("GradientBoostingClassifier", "GradientBoostingRegressor"), _BOOSTED
    ),
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": dict.fromkeys(
        ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _HISTOGRAM
    ),
    "sklearn.ensemble._hist_gradient_boosting.binning": {
        "_BinMapper": (
            "is_categorical_:a missing_values_bin_idx_:n bin_thresholds_:s n_bins_non_missing_:a"
        ),
    },
    "sklearn.ensemble._hist_gradient_boosting.predictor": {
        "TreePredictor": "nodes:nodes binned_left_cat_bitsets:a raw_left_cat_bitsets:a",
    },
    "sklearn.ensemble._voting": {
        "VotingClassifier": "le_:p classes_:c estimators_:p named_estimators_:p",
        "VotingRegressor": "estimators_:p named_estimators_:p",
    },
    "sklearn.calibration": {
        "CalibratedClassifierCV": "calibrated_classifiers_:p classes_:c",
        "_CalibratedClassifier": "estimator:p calibrators:p classes:c method:w",
        "_SigmoidCalibration": "a_:n b_:n",
    },
    "sklearn.model_selection._classification_threshold": {
        "FixedThresholdClassifier": "estimator_:p",
    },
    "sklearn.neural_network._multilayer_perceptron": dict.fromkeys(
        ("MLPClassifier", "MLPRegressor"), _NETWORK
    ),
    "sklearn.neural_network._stochastic_optimizers": dict.fromkeys(
        ("AdamOptimizer", "SGDOptimizer"), _OPTIMIZER
    ),
    "sklearn.decomposition._pca": {
        "PCA": (
            "_fit_svd_solver:w mean_:a noise_variance_:n n_samples_:n n_components_:n components_:a"
            " explained_variance_:a explained_variance_ratio_:a singular_values_:a"
        ),
    },
    "sklearn.pipeline": {"Pipeline": ""},
    "sklearn.compose._column_transformer": {
        "ColumnTransformer": (
            "_columns:s _transformer_to_input_indices:s _remainder:p sparse_output_:n "
            "transformers_:p output_indices_:s"
        ),
    },
    "sklearn.preprocessing._function_transformer": {"FunctionTransformer": ""},
    "sklearn.preprocessing._data": {
        "StandardScaler": "n_samples_seen_:f mean_:f var_:f scale_:f",
        "MinMaxScaler": "n_samples_seen_:n scale_:a min_:a data_min_:a data_max_:a data_range_:a",
        "MaxAbsScaler": "n_samples_seen_:n max_abs_:a scale_:a",
        "RobustScaler": "center_:f scale_:f",
        "Normalizer": "",
    },
    "sklearn.preprocessing._encoders": {
        "OneHotEncoder": (
            "_infrequent_enabled:n categories_:s _drop_idx_after_grouping:s drop_idx_:s "
            "_n_features_outs:s _infrequent_indices:s _default_to_infrequent_mappings:s"
        ),
        "OrdinalEncoder": (
            "_infrequent_enabled:n categories_:s _missing_indices:s _infrequent_indices:s "
            "_default_to_infrequent_mappings:s"
        ),
    },
    "sklearn.preprocessing._label": {
        "LabelEncoder": "classes_:c",
        "LabelBinarizer": "y_type_:w sparse_input_:n classes_:c",
    },
    "sklearn.impute._base": {
        "SimpleImputer": "_fit_dtype:s _fill_dtype:s indicator_:p statistics_:c",
        "MissingIndicator": "_precomputed:n _n_features:n features_:a",
    },
    "sklearn._loss.link": {
        "Interval": "low:n high:n low_inclusive:n high_inclusive:n",
        **dict.fromkeys(
            ("IdentityLink", "LogLink", "LogitLink", "MultinomialLogit"), "interval_y_pred:p"
        ),
    },
    "sklearn._loss.loss": dict.fromkeys(
        (
            "AbsoluteError",
            "HalfBinomialLoss",
            "HalfGammaLoss",
            "HalfMultinomialLoss",
            "HalfPoissonLoss",
            "HalfSquaredError",
            "HalfTweedieLoss",
            "HalfTweedieLossIdentity",
            "HuberLoss",
            "PinballLoss",
        ),
        _LOSS,
    ),
}

KNOWN: dict[str, dict[str, str]] = {
    f"{module}.{name}": dict(pair.split(":") for pair in text.split())
    for module, classes in _BY_MODULE.items()
    for name, text in classes.items()
}
"""Attributes that fitting sets, each with its kind, by full name of the estimator."""

OPAQUE = frozenset({"sklearn._loss._loss", "sklearn.linear_model._sgd_fast"})
"""Modules of compiled losses: numbers without Python attributes. An answer uses their link at
most."""

TREE = "sklearn.tree._tree.Tree"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
BUNCH = "sklearn.utils._bunch.Bunch"
