// Functions that few programs call: in the text of those only. Builtins call the C library.

INLINE float cb_floor(float x) { return __builtin_floorf(x); }
INLINE double cb_floor(double x) { return __builtin_floor(x); }
INLINE float cb_atan2(float y, float x) { return __builtin_atan2f(y, x); }
INLINE double cb_atan2(double y, double x) { return __builtin_atan2(y, x); }
