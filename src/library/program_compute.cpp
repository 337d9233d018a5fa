#include "library/program_compute.h"

namespace poseidon::library {
namespace {

Status multiply(const runtime::ProductJob& job, const ProductFn& product) {
  if (!product) {
    runtime::product_now(job);
    return {};
  }
  const Status made = product({.dtype = job.dtype,
                               .rows = job.rows,
                               .outputs = job.m,
                               .inputs = job.n,
                               .u = job.u,
                               .v = job.v,
                               .out = job.out,
                               .out_stride = job.out_stride});
  if (!made) return made;
  runtime::sum_columns_now(job);
  runtime::copy_product(job);
  return {};
}

}  // namespace

ProgramCompute::ProgramCompute(runtime::Runtime& lane, const ProductFn& product)
    : ProductThread(lane, {.multiply = [product](const runtime::ProductJob& job) { return multiply(job, product); },
                           .prepare = {}}) {}

}  // namespace poseidon::library
