// bigft._host: host-side loops that need no torch. Types for Python: bigft/_host.pyi.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <string>

#include "packing.h"
#include "spans.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Without this check pybind11 would convert: a float array would be truncated without a word.
template <typename T>
Array<T> vector_of(const py::object& value, const std::string& function, const char* argument) {
  const std::string expected = function + ": " + argument + ": expected a one-dimensional " +
                               std::string(py::str(py::dtype::of<T>())) + " array, found ";
  if (!py::isinstance<py::array>(value)) {
    throw py::type_error(expected + std::string(py::str(py::type::of(value).attr("__name__"))));
  }
  const auto array = py::reinterpret_borrow<py::array>(value);
  if (array.ndim() != 1 || !py::isinstance<py::array_t<T>>(array)) {
    throw py::type_error(expected + std::to_string(array.ndim()) + "-dimensional " +
                         std::string(py::str(array.dtype())));
  }
  return Array<T>::ensure(array);
}

template <typename Row, typename T>
Array<T> to_array(const std::vector<Row>& rows, std::vector<py::ssize_t> shape) {
  Array<T> array(std::move(shape));
  if (!rows.empty()) std::memcpy(array.mutable_data(), rows.data(), rows.size() * sizeof(Row));
  return array;
}

bigft::Convention convention_from(const std::string& name) {
  if (name == "strict") return bigft::Convention::kStrict;
  if (name == "conlleval") return bigft::Convention::kConlleval;
  throw py::value_error(
      "decode_spans: convention: expected \"strict\" or \"conlleval\", found \"" + name + "\"");
}

Array<std::int32_t> decode_spans(const py::object& tags, const py::object& offsets,
                                 const py::object& prefix, const py::object& type,
                                 const std::string& convention) {
  const std::string name = "decode_spans";
  const auto tags_ = vector_of<std::int32_t>(tags, name, "tags");
  const auto offsets_ = vector_of<std::int64_t>(offsets, name, "offsets");
  const auto prefix_ = vector_of<std::int8_t>(prefix, name, "prefix");
  const auto type_ = vector_of<std::int32_t>(type, name, "type");
  if (offsets_.size() == 0) {
    throw py::value_error(name + ": offsets: expected one more than sentences, found none");
  }
  if (type_.size() != prefix_.size()) {
    throw py::value_error(name + ": type: expected one per prefix, " +
                          std::to_string(prefix_.size()) + ", found " +
                          std::to_string(type_.size()));
  }
  const bigft::Convention convention_ = convention_from(convention);
  const bigft::Sentences sentences{tags_.data(), tags_.size(), offsets_.data(),
                                   offsets_.size() - 1};
  const bigft::TagSet tag_set{prefix_.data(), type_.data(), prefix_.size()};
  std::vector<bigft::Span> spans;
  {
    py::gil_scoped_release release;
    spans = bigft::decode_spans(sentences, tag_set, convention_);
  }
  static_assert(sizeof(bigft::Span) == 4 * sizeof(std::int32_t), "a span is a row of four");
  return to_array<bigft::Span, std::int32_t>(spans, {static_cast<py::ssize_t>(spans.size()), 4});
}

using Pack = void (*)(bigft::Samples, std::int64_t, std::int64_t, std::int64_t*);

template <Pack pack>
Array<std::int64_t> packed(const std::string& name, const py::object& lengths,
                           std::int64_t capacity, std::int64_t window) {
  const auto lengths_ = vector_of<std::int64_t>(lengths, name, "lengths");
  Array<std::int64_t> bins(lengths_.size());
  const bigft::Samples samples{lengths_.data(), lengths_.size()};
  std::int64_t* const bins_ = bins.mutable_data();
  {
    py::gil_scoped_release release;
    pack(samples, capacity, window, bins_);
  }
  return bins;
}

template <Pack pack>
void define_pack(py::module_& module, const char* name) {
  module.def(
      name,
      [name = std::string(name)](const py::object& lengths, std::int64_t capacity,
                                 std::int64_t window) {
        return packed<pack>(name, lengths, capacity, window);
      },
      py::arg("lengths"), py::arg("capacity"), py::arg("window"),
      "The bin number of each sample, int64 [N], none holding more than capacity.");
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "Host-side loops of bigft that need no torch.";
  module.def("decode_spans", &decode_spans, py::arg("tags"), py::arg("offsets"), py::arg("prefix"),
             py::arg("type"), py::arg("convention"),
             "Entity spans as int32 [num_spans, 4]: sentence, start, end (exclusive), type.");
  define_pack<bigft::pack_first_fit_decreasing>(module, "pack_first_fit_decreasing");
  define_pack<bigft::pack_length_ordered>(module, "pack_length_ordered");
}
