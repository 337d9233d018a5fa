/* Prints what a program that was compiled with poseidon.h takes for granted: sizes, offsets, numbers. Compiled as C99 with all
 * warnings as errors, so that it also shows that the header is C. tests/capi/abi_test.cmake compares the output with abi.txt. */
#include <stdio.h>

#include "poseidon/poseidon.h"

#define STRUCT(type) printf("struct %s %lu\n", #type, (unsigned long)sizeof(type))
#define FIELD(type, name) printf("field %s.%s %lu %lu\n", #type, #name, (unsigned long)offsetof(type, name), (unsigned long)sizeof(((type*)0)->name))
#define NUMBER(name) printf("number %s %d\n", #name, (int)(name))

int main(void) {
  /* The macro must be an initialiser in C99, without a warning. */
  poseidon_place place = POSEIDON_INIT(poseidon_place);
  if (place.size != sizeof place || place.rank != 0) return 1;

  STRUCT(poseidon_place);
  FIELD(poseidon_place, size);
  FIELD(poseidon_place, in_job);
  FIELD(poseidon_place, rank);
  FIELD(poseidon_place, workers);
  FIELD(poseidon_place, reserved);

  STRUCT(poseidon_tensor);
  FIELD(poseidon_tensor, size);
  FIELD(poseidon_tensor, name);
  FIELD(poseidon_tensor, shape);
  FIELD(poseidon_tensor, dimensions);
  FIELD(poseidon_tensor, dtype);
  FIELD(poseidon_tensor, reserved);
  FIELD(poseidon_tensor, values);

  STRUCT(poseidon_layer);
  FIELD(poseidon_layer, size);
  FIELD(poseidon_layer, name);
  FIELD(poseidon_layer, tensors);
  FIELD(poseidon_layer, tensor_count);
  FIELD(poseidon_layer, factor_rows);

  STRUCT(poseidon_product);
  FIELD(poseidon_product, size);
  FIELD(poseidon_product, rows);
  FIELD(poseidon_product, outputs);
  FIELD(poseidon_product, inputs);
  FIELD(poseidon_product, u);
  FIELD(poseidon_product, v);
  FIELD(poseidon_product, out);
  FIELD(poseidon_product, out_stride);
  FIELD(poseidon_product, dtype);
  FIELD(poseidon_product, reserved);

  STRUCT(poseidon_join_options);
  FIELD(poseidon_join_options, size);
  FIELD(poseidon_join_options, tensors);
  FIELD(poseidon_join_options, tensor_count);
  FIELD(poseidon_join_options, layers);
  FIELD(poseidon_join_options, layer_count);
  FIELD(poseidon_join_options, product);
  FIELD(poseidon_join_options, product_user);
  FIELD(poseidon_join_options, provisional);
  FIELD(poseidon_join_options, reserved);

  STRUCT(poseidon_synced);
  FIELD(poseidon_synced, size);
  FIELD(poseidon_synced, code);
  FIELD(poseidon_synced, contributors);
  FIELD(poseidon_synced, iteration);
  FIELD(poseidon_synced, samples);
  FIELD(poseidon_synced, message);

  STRUCT(poseidon_gradient);
  FIELD(poseidon_gradient, size);
  FIELD(poseidon_gradient, gradient);
  FIELD(poseidon_gradient, samples);
  FIELD(poseidon_gradient, reserved);

  STRUCT(poseidon_factors);
  FIELD(poseidon_factors, size);
  FIELD(poseidon_factors, outputs);
  FIELD(poseidon_factors, inputs);
  FIELD(poseidon_factors, rows);
  FIELD(poseidon_factors, weight);
  FIELD(poseidon_factors, bias);
  FIELD(poseidon_factors, samples);
  FIELD(poseidon_factors, reserved);
  FIELD(poseidon_factors, released);
  FIELD(poseidon_factors, released_user);

  STRUCT(poseidon_part);
  FIELD(poseidon_part, size);
  FIELD(poseidon_part, data);
  FIELD(poseidon_part, bytes);

  STRUCT(poseidon_letter);
  FIELD(poseidon_letter, size);
  FIELD(poseidon_letter, rank);
  FIELD(poseidon_letter, reserved);
  FIELD(poseidon_letter, memory);
  FIELD(poseidon_letter, bytes);

  STRUCT(poseidon_traffic);
  FIELD(poseidon_traffic, size);
  FIELD(poseidon_traffic, bytes_sent);
  FIELD(poseidon_traffic, bytes_received);

  STRUCT(poseidon_local_options);
  FIELD(poseidon_local_options, size);
  FIELD(poseidon_local_options, workers);
  FIELD(poseidon_local_options, reserved);
  FIELD(poseidon_local_options, command);
  FIELD(poseidon_local_options, run_folder);
  FIELD(poseidon_local_options, schemes);
  FIELD(poseidon_local_options, plan);
  FIELD(poseidon_local_options, link_bytes_per_second);
  FIELD(poseidon_local_options, on_note);
  FIELD(poseidon_local_options, on_plan);
  FIELD(poseidon_local_options, on_wait);
  FIELD(poseidon_local_options, user);
  FIELD(poseidon_local_options, per_host);
  FIELD(poseidon_local_options, staging_bytes_max);
  FIELD(poseidon_local_options, lanes);
  FIELD(poseidon_local_options, tls);
  FIELD(poseidon_local_options, wire);
  FIELD(poseidon_local_options, reserved2);

  STRUCT(poseidon_local_end);
  FIELD(poseidon_local_end, size);
  FIELD(poseidon_local_end, interrupted);
  FIELD(poseidon_local_end, reserved);
  FIELD(poseidon_local_end, run_folder);

  NUMBER(POSEIDON_ABI_VERSION);
  NUMBER(POSEIDON_OK);
  NUMBER(POSEIDON_INVALID);
  NUMBER(POSEIDON_NOT_FOUND);
  NUMBER(POSEIDON_CORRUPT_FRAME);
  NUMBER(POSEIDON_STALE_EPOCH);
  NUMBER(POSEIDON_PEER_LOST);
  NUMBER(POSEIDON_REFUSED);
  NUMBER(POSEIDON_TIMEOUT);
  NUMBER(POSEIDON_ABORTED);
  NUMBER(POSEIDON_SYSTEM);
  NUMBER(POSEIDON_FLOAT32);
  NUMBER(POSEIDON_FLOAT64);
  NUMBER(POSEIDON_BFLOAT16);
  NUMBER(POSEIDON_FLOAT16);
  NUMBER(POSEIDON_PS);
  NUMBER(POSEIDON_SFB);
  NUMBER(POSEIDON_ADAM);
  NUMBER(POSEIDON_BLOCK);
  return poseidon_abi_version() == POSEIDON_ABI_VERSION ? 0 : 1;
}
