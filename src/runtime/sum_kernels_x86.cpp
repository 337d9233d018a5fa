// Sums and conversions for x86 processors with AVX2 and F16C, which nearly all have that were made since 2013.
//
// The functions are compiled for these instructions one by one (POSEIDON_AVX2) rather than the whole file, since an inline
// function of some header, compiled here for AVX2, might otherwise be the copy that the linker keeps for the whole program.
#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "runtime/sum_kernels.h"

#define POSEIDON_AVX2 __attribute__((target("avx2,f16c")))

namespace poseidon::runtime {
namespace {

// Four registers are added side by side: an addition takes four cycles and two begin in each, and 128 bytes of each addend in
// turn let the processor's prefetchers see every addend as one stream.
constexpr std::size_t kRegisters = 4;

// One type of number: kLanes of it are loaded as one register of the type in which they are added.
struct Float32 {
  using Register = __m256;
  using Stored = std::uint32_t;
  static constexpr std::size_t kLanes = 8;
  POSEIDON_AVX2 static Register load(const std::byte* at) { return _mm256_loadu_ps(reinterpret_cast<const float*>(at)); }
  POSEIDON_AVX2 static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  POSEIDON_AVX2 static Register one_nan(Register a) {
    const Register nan = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(base::kFloat32NaN)));
    return _mm256_blendv_ps(a, nan, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }
  POSEIDON_AVX2 static void store(std::byte* at, Register a) { _mm256_storeu_ps(reinterpret_cast<float*>(at), a); }
};

struct Float64 {
  using Register = __m256d;
  using Stored = std::uint64_t;
  static constexpr std::size_t kLanes = 4;
  POSEIDON_AVX2 static Register load(const std::byte* at) { return _mm256_loadu_pd(reinterpret_cast<const double*>(at)); }
  POSEIDON_AVX2 static Register add(Register a, Register b) { return _mm256_add_pd(a, b); }
  POSEIDON_AVX2 static Register one_nan(Register a) {
    const Register nan = _mm256_castsi256_pd(_mm256_set1_epi64x(static_cast<long long>(base::kFloat64NaN)));
    return _mm256_blendv_pd(a, nan, _mm256_cmp_pd(a, a, _CMP_UNORD_Q));
  }
  POSEIDON_AVX2 static void store(std::byte* at, Register a) { _mm256_storeu_pd(reinterpret_cast<double*>(at), a); }
};

struct BFloat16 {
  using Register = __m256;
  using Stored = std::uint16_t;
  static constexpr std::size_t kLanes = 8;
  POSEIDON_AVX2 static Register load(const std::byte* at) {
    const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16));
  }
  POSEIDON_AVX2 static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  POSEIDON_AVX2 static Register one_nan(Register a) { return Float32::one_nan(a); }
  // As base::to_bfloat16; the one NaN is left a NaN by the addition.
  POSEIDON_AVX2 static void store(std::byte* at, Register a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i is_odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i carried = _mm256_add_epi32(bits, _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), is_odd));
    const __m256i rounded = _mm256_srli_epi32(carried, 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), packed);
  }
};

struct Float16 {
  using Register = __m256;
  using Stored = std::uint16_t;
  static constexpr std::size_t kLanes = 8;
  POSEIDON_AVX2 static Register load(const std::byte* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  POSEIDON_AVX2 static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  POSEIDON_AVX2 static Register one_nan(Register a) { return Float32::one_nan(a); }
  POSEIDON_AVX2 static void store(std::byte* at, Register a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
};

// All loads of a step come before its stores, so an addend may also be where the sum goes.
template <typename Number>
POSEIDON_AVX2 void sum_avx2(const SumArrays& arrays) {
  constexpr std::size_t kRegisterBytes = Number::kLanes * sizeof(typename Number::Stored);
  constexpr std::size_t kStepBytes = kRegisters * kRegisterBytes;
  const std::size_t bytes = arrays.elements * sizeof(typename Number::Stored);
  const std::byte* const* const addends = arrays.addends.data();
  const std::size_t count = arrays.addends.size();
  typename Number::Register sum[kRegisters];
  std::size_t at = 0;
  for (; at + kStepBytes <= bytes; at += kStepBytes) {
    for (std::size_t r = 0; r < kRegisters; ++r) sum[r] = Number::load(addends[0] + at + r * kRegisterBytes);
    for (std::size_t k = 1; k < count; ++k) {
      const std::byte* const addend = addends[k] + at;
      for (std::size_t r = 0; r < kRegisters; ++r) sum[r] = Number::add(sum[r], Number::load(addend + r * kRegisterBytes));
    }
    for (std::size_t r = 0; r < kRegisters; ++r) sum[r] = Number::one_nan(sum[r]);
    for (std::size_t r = 0; r < kRegisters; ++r) Number::store(arrays.out + at + r * kRegisterBytes, sum[r]);
    if (arrays.copy == nullptr) continue;
    for (std::size_t r = 0; r < kRegisters; ++r) Number::store(arrays.copy + at + r * kRegisterBytes, sum[r]);
  }
  // The last numbers, fewer than a step, go through memory as long as a register, so that nothing behind an array is touched.
  for (; at < bytes; at += kRegisterBytes) {
    const std::size_t left = std::min(kRegisterBytes, bytes - at);
    std::byte rest[kRegisterBytes] = {};
    std::memcpy(rest, addends[0] + at, left);
    sum[0] = Number::load(rest);
    for (std::size_t k = 1; k < count; ++k) {
      std::memcpy(rest, addends[k] + at, left);
      sum[0] = Number::add(sum[0], Number::load(rest));
    }
    Number::store(rest, Number::one_nan(sum[0]));
    std::memcpy(arrays.out + at, rest, left);
    if (arrays.copy != nullptr) std::memcpy(arrays.copy + at, rest, left);
  }
}

// Both types have a register of eight float32.
template <typename From, typename To>
POSEIDON_AVX2 void convert_avx2(const std::byte* from, std::size_t elements, std::byte* to) {
  constexpr std::size_t kLanes = From::kLanes;
  static_assert(kLanes == To::kLanes);
  constexpr std::size_t kFrom = sizeof(typename From::Stored);
  constexpr std::size_t kTo = sizeof(typename To::Stored);
  std::size_t i = 0;
  for (; i + kLanes <= elements; i += kLanes) To::store(to + i * kTo, Float32::one_nan(From::load(from + i * kFrom)));
  if (i == elements) return;
  // As in sum_avx2, the last ones go through memory as long as a register.
  std::byte rest_from[kLanes * kFrom] = {};
  std::byte rest_to[kLanes * kTo];
  std::memcpy(rest_from, from + i * kFrom, (elements - i) * kFrom);
  To::store(rest_to, Float32::one_nan(From::load(rest_from)));
  std::memcpy(to + i * kTo, rest_to, (elements - i) * kTo);
}

bool has_avx2_and_f16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  // Not every compiler knows F16C by name; what the builtin says of AVX2 includes that the system saves its registers.
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

std::span<const SumKernels> special_sum_kernels_here() {
  static constexpr SumKernels kAvx2[] = {
      {"avx2", sum_avx2<Float32>, sum_avx2<Float64>, sum_avx2<BFloat16>, sum_avx2<Float16>, convert_avx2<Float32, BFloat16>,
       convert_avx2<Float32, Float16>, convert_avx2<BFloat16, Float32>, convert_avx2<Float16, Float32>}};
  if (!has_avx2_and_f16c()) return {};
  return kAvx2;
}

}  // namespace poseidon::runtime
