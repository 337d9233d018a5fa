// `poseidon devices`: what this host has to compute and to communicate with.
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "apps/poseidon/command.h"
#include "base/text.h"
#include "launch/reach.h"

namespace poseidon::app {
namespace {

using nlohmann::ordered_json;

// The value of the first line "NAME : value" of a file of the kernel's, or nothing.
std::optional<std::string> value_of(const std::filesystem::path& file, std::string_view name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with(name) || colon == std::string::npos) continue;
    const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? std::string() : line.substr(begin);
  }
  return std::nullopt;
}

// In bytes; "16303428 kB" there.
std::uint64_t memory_bytes() {
  std::istringstream text(value_of("/proc/meminfo", "MemTotal").value_or("0"));
  std::uint64_t kilobytes = 0;
  text >> kilobytes;
  return kilobytes * 1024;
}

// NVIDIA's driver tells of each card, whether or not this program's torch can use it.
std::vector<std::string> cards() {
  std::vector<std::string> models;
  std::error_code none;
  for (const auto& card : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", none)) {
    models.push_back(value_of(card.path() / "information", "Model").value_or("a card of unknown model"));
  }
  std::sort(models.begin(), models.end());
  return models;
}

// Of a network interface, in Mbit/s, where its driver knows.
std::optional<int> megabits(const std::string& interface) {
  std::ifstream file("/sys/class/net/" + interface + "/speed");
  int speed = -1;
  return file >> speed && speed > 0 ? std::optional(speed) : std::nullopt;
}

ordered_json collect() {
  ordered_json all;
  all["processor"] = {{"model", value_of("/proc/cpuinfo", "model name").value_or("unknown")},
                      {"cores", std::max(1u, std::thread::hardware_concurrency())},
                      {"kernels", at::get_cpu_capability()}};
  all["memory_bytes"] = memory_bytes();
  all["gpus"] = cards();
  all["torch_sees_gpus"] = at::detail::getCUDAHooks().hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
  all["network"] = ordered_json::array();
  for (const launch::OwnAddress& own : launch::own_addresses()) {
    const std::optional<int> speed = megabits(own.interface);
    all["network"].push_back({{"interface", own.interface}, {"address", own.address}, {"megabits_per_second", speed ? ordered_json(*speed) : ordered_json(nullptr)}});
  }
  return all;
}

void print(const ordered_json& all) {
  const ordered_json& processor = all["processor"];
  std::printf("processor  %s, %u cores, kernels for %s\n", processor["model"].get<std::string>().c_str(), processor["cores"].get<unsigned>(),
              processor["kernels"].get<std::string>().c_str());
  std::printf("memory     %s\n", base::readable_bytes(all["memory_bytes"].get<double>()).c_str());
  if (all["gpus"].empty()) std::printf("GPUs       none\n");
  for (const ordered_json& gpu : all["gpus"]) std::printf("GPU        %s\n", gpu.get<std::string>().c_str());
  if (!all["gpus"].empty() && all["torch_sees_gpus"] == 0) {
    std::printf("           (the torch that this program was built with is one for the CPU and does not use them)\n");
  }
  if (all["network"].empty()) std::printf("network    no address that other hosts could reach\n");
  for (const ordered_json& link : all["network"]) {
    const std::string speed = link["megabits_per_second"].is_null() ? "of unknown speed" : base::concat(link["megabits_per_second"].get<int>(), " Mbit/s");
    std::printf("network    %s at %s, %s\n", link["interface"].get<std::string>().c_str(), link["address"].get<std::string>().c_str(), speed.c_str());
  }
}

}  // namespace

int devices_command(const std::vector<std::string>& arguments) {
  bool as_json = false;
  std::optional<std::string> gpu;
  CLI::App app;
  app.name("poseidon devices");
  app.description("Shows what this host has to compute and to communicate with.");
  app.footer("Examples:\n"
             "  poseidon devices\n"
             "  poseidon devices --json");
  app.add_option("--gpu", gpu, "Caffe's list of GPUs; all are shown, whatever it says");
  app.add_flag("--json", as_json, "print JSON instead of text");
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  const ordered_json all = collect();
  if (as_json) {
    std::printf("%s\n", all.dump(2).c_str());
  } else {
    print(all);
  }
  return kSuccess;
}

}  // namespace poseidon::app
