// The Python module `poseidon.torch._engine`: Job, and nothing that decides anything.
//
// Whatever waits, or takes long, lets other Python threads run meanwhile.
#include <torch/csrc/utils/pybind.h>

#include <pybind11/stl.h>

#include "engines/torch/python/collectives.h"
#include "engines/torch/python/job.h"

namespace py = pybind11;
using poseidon::python::Collectives;
using poseidon::python::Job;
using poseidon::python::JobError;
using poseidon::python::LayerArgument;
using poseidon::python::Sum;
using poseidon::python::WaitedDevice;
using poseidon::python::TensorArgument;

namespace {

using Free = py::call_guard<py::gil_scoped_release>;
// (name, tensors, factor_rows)
using LayerTuple = std::tuple<std::string, std::vector<std::uint32_t>, std::size_t>;

std::vector<LayerArgument> layers_from(const std::vector<LayerTuple>& tuples) {
  std::vector<LayerArgument> layers;
  for (const auto& [name, tensors, factor_rows] : tuples) layers.push_back({name, tensors, factor_rows});
  return layers;
}

}  // namespace

PYBIND11_MODULE(_engine, module) {
  py::module_::import("torch.distributed");  // which knows the base class of process groups
  module.doc() = "The engine of Poseidon, for poseidon.torch.";
  py::register_exception<JobError>(module, "JobError", PyExc_RuntimeError);
  py::class_<Sum>(module, "Sum").def_readonly("contributors", &Sum::contributors).def_readonly("samples", &Sum::samples);
  py::class_<Collectives, c10d::Backend, c10::intrusive_ptr<Collectives>>(module, "Collectives")
      .def(py::init([](std::shared_ptr<Job> job, std::uint32_t channel, std::vector<int> ranks, int rank) {
             return c10::make_intrusive<Collectives>(std::move(job), channel, std::move(ranks), rank);
           }),
           py::arg("job"), py::arg("channel"), py::arg("ranks"), py::arg("rank"))
      .def(
          "gather_rows",
          [](Collectives& group, std::optional<at::Tensor> indices, std::optional<at::Tensor> rows, at::Tensor like) -> c10::intrusive_ptr<c10d::Work> {
            return group.gather_rows(indices.value_or(at::Tensor()), rows.value_or(at::Tensor()), std::move(like));
          },
          Free(), py::arg("indices"), py::arg("rows"), py::arg("like"));
  py::class_<WaitedDevice, std::shared_ptr<WaitedDevice>>(module, "WaitedDevice")
      .def(py::init<double>(), py::arg("flops_per_second"))
      .def("catch_up", &WaitedDevice::catch_up)
      .def("compute", &WaitedDevice::compute, Free(), py::arg("seconds"));
  py::class_<Job, std::shared_ptr<Job>>(module, "Job")
      .def_static(
          "join",
          [](const std::vector<TensorArgument>& tensors, const std::vector<LayerTuple>& layers, bool provisional, int product_threads,
             const std::shared_ptr<WaitedDevice>& products_on) {
            return std::shared_ptr<Job>(Job::join(tensors, layers_from(layers), provisional, product_threads, products_on));
          },
          Free(), py::arg("tensors"), py::arg("layers"), py::arg("provisional") = false, py::arg("product_threads") = 1,
          py::arg("products_on") = std::shared_ptr<WaitedDevice>())
      .def_property_readonly("rank", &Job::rank)
      .def_property_readonly("workers", &Job::workers)
      .def("scheme", &Job::scheme)
      .def("plan", &Job::plan)
      .def(
          "renew",
          [](Job& job, const std::vector<TensorArgument>& tensors, const std::vector<LayerTuple>& layers, std::uint64_t first, std::size_t known) {
            job.renew(tensors, layers_from(layers), first, known);
          },
          Free(), py::arg("tensors"), py::arg("layers"), py::arg("first"), py::arg("known") = 0)
      .def("begin", &Job::begin, Free())
      .def("span", &Job::span, py::arg("name"), py::arg("is_begin"))
      .def_property_readonly("waited_seconds", &Job::waited_seconds)
      .def("submit", &Job::submit, Free())
      .def("submit_absent", &Job::submit_absent, Free())
      .def("submit_factors", &Job::submit_factors, Free())
      .def("arrived", &Job::arrived)
      .def("wait", &Job::wait, Free())
      .def("gather",
           [](Job& job, const std::string& own) {
             std::vector<std::string> all;
             {
               const py::gil_scoped_release free;
               all = job.gather(own);
             }
             return all;
           })
      .def("note", &Job::note, Free())
      .def("leave", &Job::leave, Free())
      .def("fail", &Job::fail, Free())
      .def("forsake", &Job::forsake)
      .def("error", &Job::error)
      .def("bytes_sent", &Job::bytes_sent, Free())
      .def("bytes_received", &Job::bytes_received, Free());
}
