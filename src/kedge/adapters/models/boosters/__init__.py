"""Models of gradient boosting libraries, in each library's own plain format.

A file of XGBoost (JSON, UBJSON), LightGBM (text) or CatBoost (CBM) holds trees and no code. Each
library parses it in native code, so a model runs in a process of its own, behind the fence. A file
states its columns, its objective and the categories that it was fitted on, as far as the library
stores them.
"""
