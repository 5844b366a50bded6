/* What native.c takes from this file on 64-bit ARM: quantized products by those of ARMv8.2. */

#if defined(__linux__)
#include <sys/auxv.h>
#endif

static int has_dot_products(void)
{
#if defined(__APPLE__)
    return 1;
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return 0;
#endif
}

#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define ROWS 4

TARGET static inline __attribute__((always_inline)) void
quads_block(const int rows, word inner, const uint8_t *left, word step, const int8_t *right,
            const int32_t *order, const int32_t *bias, const float *scale, struct codes codes,
            uint8_t *out, word out_step, word width)
{
    /* Its products are of signed numbers: inputs are taken less 128, which `extra` makes good. */
    int32x4_t sums[ROWS][PANEL / 4] = {0}, extra[PANEL / 4] = {0};
    int8x16_t half = vdupq_n_s8(-128);
    (void)order;
    for (word place = 0; place < inner; place += 4, right += 4 * PANEL) {
        int8x16_t weights[PANEL / 4];
        for (int part = 0; part < PANEL / 4; part++) {
            weights[part] = vld1q_s8(right + 16 * part);
            extra[part] = vdotq_s32(extra[part], weights[part], half);
        }
        for (int row = 0; row < rows; row++) {
            uint32_t four;
            memcpy(&four, left + row * step + place, sizeof four);
            int8x16_t inputs = vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080));
            for (int part = 0; part < PANEL / 4; part++)
                sums[row][part] = vdotq_s32(sums[row][part], weights[part], inputs);
        }
    }
    for (int row = 0; row < rows; row++) {
        int32_t whole[PANEL];
        for (int part = 0; part < PANEL / 4; part++)
            vst1q_s32(whole + 4 * part, vsubq_s32(sums[row][part], extra[part]));
        store_codes_any(whole, bias, scale, codes, out + row * out_step, width);
    }
}

LAYER(quads, 4, 0)
