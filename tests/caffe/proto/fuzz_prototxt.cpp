// Any bytes as a prototxt: a ConfigError or a net, never anything else.
#include <cstddef>
#include <cstdint>

#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/message.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace poseidon::caffe;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* type : {"NetParameter", "SolverParameter"}) {
    try {
      const proto::Message message = proto::parse_text(text, type, "fuzz.prototxt");
      // What was read can be printed, and reads again.
      static_cast<void>(proto::parse_text(message.as_text(), type, "again.prototxt"));
      if (message.type_name() != "caffe.NetParameter") continue;
      for (const proto::Message& layer : message.messages("layer")) {
        static_cast<void>(layer.text("type"));
        static_cast<void>(layer.position("bottom", 3));
        static_cast<void>(layer.message("convolution_param").integers("kernel_size"));
      }
    } catch (const ConfigError&) {
    }
  }
  return 0;
}
