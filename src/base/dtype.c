/* dtype.c - the table of data types. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "onetrip runs on little-endian machines only: weights are used as they lie in the file"
#endif

#include "base/dtype.h"

static const struct dtype_info table[OT_DTYPE_MAX] = {
    [OT_F32] = {"F32", 1, 4},           [OT_F16] = {"F16", 1, 2},
    [OT_BF16] = {"BF16", 1, 2},         [OT_Q4_0] = {"Q4_0", 32, 18},
    [OT_Q4_1] = {"Q4_1", 32, 20},       [OT_Q5_0] = {"Q5_0", 32, 22},
    [OT_Q5_1] = {"Q5_1", 32, 24},       [OT_Q8_0] = {"Q8_0", 32, 34},
    [OT_Q2_K] = {"Q2_K", 256, 84},      [OT_Q3_K] = {"Q3_K", 256, 110},
    [OT_Q4_K] = {"Q4_K", 256, 144},     [OT_Q5_K] = {"Q5_K", 256, 176},
    [OT_Q6_K] = {"Q6_K", 256, 210},     [OT_IQ4_NL] = {"IQ4_NL", 32, 18},
    [OT_IQ4_XS] = {"IQ4_XS", 256, 136}, [OT_MXFP4] = {"MXFP4", 32, 17},
};

static const struct dtype_info unknown = {0, 1, 1};

const struct dtype_info *dtype_get(uint32_t dtype) {
    return dtype < OT_DTYPE_MAX && table[dtype].name != 0 ? &table[dtype] : &unknown;
}

const char *ot_dtype_name(uint32_t dtype) {
    return dtype_get(dtype)->name;
}
