// `poseidon-images plot OUT.png`: draws the chart that comes on standard input (chart.h).
#include <cstdio>
#include <iostream>
#include <iterator>

#include "apps/poseidon-data/chart.h"
#include "apps/poseidon-data/commands.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::data {

int plot_command(const std::vector<std::string>& arguments) {
  if (arguments.size() != 1) {
    std::fputs("poseidon-images plot: wants the name of the picture, and the chart on standard input\n", stderr);
    return kWrongUsage;
  }
  const std::string text(std::istreambuf_iterator<char>(std::cin), {});
  try {
    draw(parse_chart(text), arguments[0]);
    return kSuccess;
  } catch (const caffe::ConfigError& error) {
    std::fprintf(stderr, "poseidon-images plot: %s\n", error.what());
    return kWrongInput;
  } catch (const caffe::SystemError& error) {
    std::fprintf(stderr, "poseidon-images plot: %s\n", error.what());
    return kSystem;
  }
}

}  // namespace poseidon::data
