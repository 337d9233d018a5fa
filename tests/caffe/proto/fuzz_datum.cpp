// Any bytes as a record of a data base: a ConfigError or an image whose numbers are as many as its extents say.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace poseidon::caffe;
  try {
    const proto::Datum datum = proto::parse_datum({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (!datum.encoded && datum.count() != datum.bytes.size() + datum.floats.size()) std::abort();
    const proto::Datum again = proto::parse_datum(proto::datum_bytes(datum), "again");
    if (again.bytes != datum.bytes || again.label != datum.label) std::abort();
  } catch (const ConfigError&) {
  }
  return 0;
}
