"""Table of the ONNX operators that the walk knows: time and size follow from their inputs.

A graph with other operators runs in a process. `Loop`, `Scan` and `If` are omitted because they
hold graphs. `ConstantOfShape`, `Range`, `NonZero` and `Unique` are omitted because a caller's
number decides their size; `Einsum` and RNNs until they have been reviewed.
"""

from __future__ import annotations

_ELEMENTWISE = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift Cast CastLike Ceil Celu Clip Cos Cosh"
    " Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Hardmax"
    " Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax Max Mean Min Mish Mod Mul Neg"
    " Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softmax Softplus Softsign"
    " Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"
)
_REDUCTIONS = (
    "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean"
    " ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
_LAYERS = (
    "AveragePool BatchNormalization Conv Gemm GlobalAveragePool GlobalMaxPool GroupNormalization "
    "InstanceNormalization LayerNormalization LpNormalization LRN MatMul MaxPool"
)
_SHAPES = (
    "Concat Constant DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND OneHot Pad"
    " Reshape Shape Size Slice SpaceToDepth Split Squeeze Tile TopK Transpose Unsqueeze"
)
_QUANTISED = (
    "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul"
    " QuantizeLinear"
)
_LEARNING = (
    "ArrayFeatureExtractor Binarizer Imputer LabelEncoder Normalizer OneHotEncoder Scaler"
    " TreeEnsembleClassifier TreeEnsembleRegressor LinearClassifier LinearRegressor"
)

KNOWN = frozenset(
    (f"{_ELEMENTWISE} {_REDUCTIONS} {_LAYERS} {_SHAPES} {_QUANTISED}").split()
    + [f"ai.onnx.ml.{name}" for name in _LEARNING.split()]
)

CONSTANT_INPUTS: dict[str, tuple[int, ...]] = {
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
"""Inputs that decide the size of an answer: they must be constants in the file."""

TREES = frozenset({"ai.onnx.ml.TreeEnsembleClassifier", "ai.onnx.ml.TreeEnsembleRegressor"})
MODES_BRANCH = frozenset(
    {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}
)

LINEAR = frozenset({"ai.onnx.ml.LinearClassifier", "ai.onnx.ml.LinearRegressor"})

KEEP_WIDTH = frozenset(
    {"Cast", "Identity", "ai.onnx.ml.Imputer", "ai.onnx.ml.Normalizer", "ai.onnx.ml.Scaler"}
)
"""Operators whose answer is as wide as their first input."""
