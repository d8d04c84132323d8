/* mover.c - own memory, filled by direct reads. Refused in this commit: the page cache only. */
#include "base/error.h"
#include "residency/internal.h"

uint64_t residency_least_bytes(const struct residency_extent *extents, uint32_t n_extents) {
    (void)extents;
    (void)n_extents;
    return 0;
}
int residency_measure_disk(struct residency *r, double *bytes_per_s, uint64_t *bytes,
                           struct ot_error *err) {
    (void)r;
    (void)bytes_per_s;
    (void)bytes;
    return error_set(err, OT_ERR_UNSUPPORTED, "", "not in this build");
}
int mover_open(struct residency *r, const struct residency_params *params, struct mover **out,
               struct ot_error *err) {
    (void)r;
    (void)params;
    (void)out;
    return error_set(err, OT_ERR_UNSUPPORTED, "", "weights beyond the budget: not in this build");
}
void mover_close(struct mover *m) {
    (void)m;
}
int mover_sweep_begin(struct mover *m, struct ot_error *err) {
    (void)m;
    (void)err;
    return 0;
}
void mover_sweep_end(struct mover *m, bool failed) {
    (void)m;
    (void)failed;
}
int mover_acquire(struct mover *m, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                  struct residency_view *view, struct ot_error *err) {
    (void)m, (void)extent, (void)part, (void)row, (void)wait, (void)view, (void)err;
    return 0;
}
void mover_release(struct mover *m, const struct residency_view *view) {
    (void)m;
    (void)view;
}
void mover_want_parts(struct mover *m, uint32_t extent, const uint32_t *parts, uint32_t n_parts) {
    (void)m, (void)extent, (void)parts, (void)n_parts;
}
int mover_rows(struct mover *m, uint32_t extent, const uint32_t *rows, uint32_t n,
               residency_row_fn *each, void *user, struct ot_error *err) {
    (void)m, (void)extent, (void)rows, (void)n, (void)each, (void)user, (void)err;
    return 0;
}
void mover_info(const struct mover *m, struct residency_info *info) {
    (void)m;
    (void)info;
}
bool mover_check(const struct mover *m) {
    (void)m;
    return true;
}
