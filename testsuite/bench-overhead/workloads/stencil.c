/* Stencils over heap grids: five points out of place, seven points in three dimensions, in place, and a scattered update. */
#include "measure.h"
#include <string.h>

__attribute__((noinline)) static void five(double *restrict to, const double *restrict from, int n) {
  for (int i = 1; i < n - 1; i++)
    for (int j = 1; j < n - 1; j++)
      to[i * n + j] = 0.2 * (from[i * n + j] + from[i * n + j - 1] + from[i * n + j + 1] + from[(i - 1) * n + j] + from[(i + 1) * n + j]);
}
__attribute__((noinline)) static void seven(float *to, const float *from, int n) {
  for (int i = 1; i < n - 1; i++)
    for (int j = 1; j < n - 1; j++)
      for (int k = 1; k < n - 1; k++) {
        const float *p = from + (i * n + j) * n + k;
        to[(i * n + j) * n + k] = (p[0] * 2 + p[1] + p[-1] + p[n] + p[-n] + p[n * n] + p[-n * n]) * 0.125f;
      }
}
__attribute__((noinline)) static void in_place(double *a, int n) {
  for (int i = 1; i < n - 1; i++)
    for (int j = 1; j < n - 1; j++)
      a[i * n + j] = 0.25 * (a[i * n + j - 1] + a[i * n + j + 1] + a[(i - 1) * n + j] + a[(i + 1) * n + j]);
}
__attribute__((noinline)) static void scatter(uint32_t *bins, const double *a, int n) {
  for (int i = 0; i < n; i++)
    bins[(uint32_t)(a[i] * 1024) & 1023]++;
}

static uint64_t work(int scale) {
  enum { N = 256, M = 40 };
  double *a = calloc(N * N, sizeof *a), *b = calloc(N * N, sizeof *b);
  float *c = calloc(M * M * M, sizeof *c), *d = calloc(M * M * M, sizeof *d);
  uint32_t *bins = calloc(1024, sizeof *bins);
  uint64_t h = 0;
  if (!a || !b || !c || !d || !bins)
    exit(1);
  for (int i = 0; i < N * N; i++)
    a[i] = (double)(i * 7919 % 1000) / 1000;
  for (int i = 0; i < M * M * M; i++)
    c[i] = (float)(i * 31 % 97);
  for (int r = 0; r < 20 * scale; r++) {
    five(b, a, N), five(a, b, N);
    seven(d, c, M), seven(c, d, M);
    in_place(a, N);
    scatter(bins, a, N * N);
  }
  for (int i = 0; i < 1024; i++)
    h = mix(h, bins[i]);
  for (int i = 0; i < N * N; i += 17)
    h = mix(h, (uint64_t)(a[i] * 1e6));
  for (int i = 0; i < M * M * M; i += 7)
    h = mix(h, (uint64_t)(int64_t)(c[i] * 1e3f));
  free(a), free(b), free(c), free(d), free(bins);
  return h;
}
