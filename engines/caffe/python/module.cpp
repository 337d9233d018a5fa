// The Python module `poseidon.caffe._engine`: nets that keep their blobs, solvers around them, and nothing that a
// script could do by itself; names and calling conventions of pycaffe are made of this in python/poseidon/caffe.
//
// Whatever computes lets other Python threads run meanwhile.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <c10/util/Exception.h>

#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/layers/standard_layers.h"
#include "engines/caffe/net/trained_net.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/python/arrays.h"
#include "engines/caffe/python/instance.h"
#include "engines/caffe/python/kept_net.h"
#include "engines/caffe/python/trainer.h"

namespace py = pybind11;

namespace poseidon::caffe::python {
namespace {

using Free = py::call_guard<py::gil_scoped_release>;

LayerRegistry layers() {
  LayerRegistry registry = standard_layers();
  registry.add("Python", [](const LayerConfig& config) { return make_python_by(classes(), config); });
  return registry;
}

at::ScalarType dtype_named(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float64") return at::kDouble;
  throw ConfigError(base::concat("there is no dtype \"", name, "\": nets compute in float32 or float64"));
}

// A net of its own, which lives as long as what is seen of it.
struct OwnNet {
  OwnNet(const proto::Message& message, const NetOptions& options) : net(message, layers(), options), kept(net) {}
  Net net;
  KeptNet kept;
};

std::shared_ptr<KeptNet> make_net(const std::string& file, int phase, std::int64_t level,
                                  const std::vector<std::string>& stages, const std::string& dtype,
                                  std::uint64_t seed) {
  if (phase != 0 && phase != 1) throw ConfigError("the phase of a net is caffe.TRAIN or caffe.TEST");
  const Phase of_net = phase == 0 ? Phase::kTrain : Phase::kTest;
  const NetOptions options{.state = {.phase = of_net, .level = level, .stages = stages},
                           .dtype = dtype_named(dtype),
                           .seed = seed};
  const auto made = std::make_shared<OwnNet>(proto::read_text(file, "NetParameter"), options);
  return {made, &made->kept};
}

template <auto kWrite>
void save(const KeptNet& net, const std::string& file) {
  if (const Status written = kWrite(file, trained_net(net.net())); !written) {
    throw SystemError(written.error().message);
  }
}

template <auto kRead>
void load(KeptNet& net, const std::string& file) {
  copy_trained(kRead(file), file, net.net());
}

struct LayerFacts {
  std::string name;
  std::string type;
  std::vector<std::string> bottoms;
  std::vector<std::string> tops;
  std::vector<std::shared_ptr<Blob>> blobs;
};

std::vector<LayerFacts> layer_facts(const KeptNet& net) {
  std::vector<LayerFacts> all;
  for (std::size_t i = 0; i < net.net().steps().size(); ++i) {
    const Layer& layer = *net.net().steps()[i].layer;
    all.push_back({.name = layer.name(),
                   .type = layer.type(),
                   .bottoms = layer.bottoms(),
                   .tops = layer.tops(),
                   .blobs = net.arrays_of(i)});
  }
  return all;
}

std::vector<std::pair<std::string, double>> loss_weights(const KeptNet& net) {
  std::map<std::string, double> weights;
  for (const Step& step : net.net().steps()) {
    for (std::size_t i = 0; i < step.tops.size(); ++i) weights[step.layer->tops()[i]] = step.loss_weights[i];
  }
  std::vector<std::pair<std::string, double>> in_order;
  for (const std::string& name : net.names()) in_order.emplace_back(name, weights.at(name));
  return in_order;
}

std::vector<std::string> outputs(const KeptNet& net) {
  std::vector<std::string> names;
  for (const Output& output : net.net().outputs()) names.push_back(output.name);
  return names;
}

// Between two iterations Python hears of Ctrl-C.
void listen_to_signals() {
  const py::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const SystemError& error) {
    PyErr_SetString(PyExc_OSError, error.what());
  } catch (const c10::Error& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
  }
}

void define_blob(py::module_& module) {
  py::class_<Blob, std::shared_ptr<Blob>>(module, "Blob",
                                          "Values and gradient of a blob, as NumPy arrays over the engine's memory.")
      .def(py::init([](const Shape& shape, const std::string& dtype) { return Blob(shape, dtype_named(dtype)); }),
           py::arg("shape"), py::arg("dtype") = "float32")
      .def_property_readonly("data", [](const Blob& blob) { return array_over(blob.data()); })
      .def_property_readonly("diff", [](Blob& blob) { return array_over(blob.diff()); })
      .def_property_readonly("shape", [](const Blob& blob) { return py::tuple(py::cast(blob.shape())); })
      .def_property_readonly("count", [](const Blob& blob) { return elements_of(blob.shape()); })
      .def("reshape", [](Blob& blob, const py::args& extents) { blob.reshape(py::cast<Shape>(py::list(extents))); });
}

void define_net(py::module_& module) {
  py::class_<LayerFacts>(module, "LayerFacts")
      .def_readonly("name", &LayerFacts::name)
      .def_readonly("type", &LayerFacts::type)
      .def_readonly("bottoms", &LayerFacts::bottoms)
      .def_readonly("tops", &LayerFacts::tops)
      .def_readonly("blobs", &LayerFacts::blobs);
  py::class_<KeptNet, std::shared_ptr<KeptNet>>(module, "KeptNet")
      .def(py::init(&make_net), Free(), py::arg("file"), py::arg("phase"), py::arg("level"), py::arg("stages"),
           py::arg("dtype"), py::arg("seed"))
      .def_property_readonly("name", [](const KeptNet& net) { return net.net().name(); })
      .def_property_readonly("blob_names", &KeptNet::names)
      .def("blob", &KeptNet::blob)
      .def_property_readonly("layers", &layer_facts)
      .def_property_readonly("loss_weights", &loss_weights)
      .def_property_readonly("outputs", &outputs)
      .def("reshape", &KeptNet::reshape, Free())
      .def("forward", &KeptNet::forward_next, Free(), py::arg("first"), py::arg("last"))
      .def("backward", &KeptNet::backward, Free(), py::arg("first"), py::arg("last"))
      .def("clear_param_diffs", &KeptNet::clear_array_diffs, Free())
      .def("share_with", &KeptNet::share_with, Free())
      .def("copy_from", &load<&read_any_model>, Free())
      .def("load_hdf5", &load<&read_hdf5_model>, Free())
      .def("save", &save<&proto::write_model>, Free())
      .def("save_hdf5", &save<&write_hdf5_model>, Free())
      .def("feed", [](KeptNet& net, const std::string& blob, const py::object& values) {
        net.net().feed(blob, tensor_from(values, net.net().dtype()));
      });
}

void define_trainer(py::module_& module) {
  py::class_<Trainer, std::shared_ptr<Trainer>>(module, "Trainer")
      .def(py::init([](const std::string& file, const std::string& type, const std::string& dtype, std::uint64_t seed,
                       const std::function<void()>& on_start, const std::function<void()>& on_gradients_ready) {
             const py::gil_scoped_release free;
             return std::make_shared<Trainer>(file, layers(),
                                              TrainerOptions{.type = type, .dtype = dtype_named(dtype), .seed = seed},
                                              TrainerEvents{.on_start = on_start,
                                                            .on_gradients_ready = on_gradients_ready,
                                                            .on_done = listen_to_signals});
           }),
           py::arg("file"), py::arg("type"), py::arg("dtype"), py::arg("seed"), py::arg("on_start"),
           py::arg("on_gradients_ready"))
      .def("net", [](const std::shared_ptr<Trainer>& self) { return std::shared_ptr<KeptNet>(self, &self->net()); })
      .def("test_nets",
           [](const std::shared_ptr<Trainer>& self) {
             std::vector<std::shared_ptr<KeptNet>> nets;
             for (const auto& net : self->test_nets()) nets.emplace_back(self, net.get());
             return nets;
           })
      .def_property_readonly("iteration", &Trainer::iteration)
      .def("step", &Trainer::step, Free())
      .def("solve", &Trainer::solve, Free())
      .def("apply_update", &Trainer::apply_update, Free())
      .def("snapshot", [](Trainer& self) { return self.snapshot().string(); }, Free())
      .def("restore", [](Trainer& self, const std::string& state) { self.restore(state); }, Free());
}

}  // namespace
}  // namespace poseidon::caffe::python

PYBIND11_MODULE(_engine, module) {
  using namespace poseidon::caffe::python;  // NOLINT: what is defined in this file
  namespace log = poseidon::base::log;
  module.doc() = "The engine of Poseidon's Caffe edition, for poseidon.caffe.";
  py::register_exception<poseidon::caffe::ConfigError>(module, "ConfigError", PyExc_RuntimeError);
  py::register_exception_translator(translate);
  define_blob(module);
  define_net(module);
  define_trainer(module);
  module.def("layer_types", [] { return layers().types(); });
  module.def("configure_log", [](bool informs) {
    log::configure("caffe", informs ? log::Level::kInfo : log::Level::kWarning);
  });
  module.def("log", [](const std::string& text) { log::info(text); });
}
