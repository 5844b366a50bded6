// Raw 16-bit mono PCM on standard input, detections as JSON lines on standard output, with the
// model file as the only other input: what `earmark detect -` does, for programs in C++.
//
//     arecord -q -t raw -f S16_LE -r 16000 -c 1 | ./detect model.onnx [--threshold T]

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

using nlohmann::json;

double rounded(double value) { return std::nearbyint(value * 1e4) / 1e4; }

struct Keyword {
  size_t label;
  int64_t fire, rearm;  // sums over the window
  bool armed = true;
  int64_t ready = 0;  // first step at which it may fire again
};

// Posteriors to detections, as runtime/decision.py. Sums are integers in units of 2^-32, so that
// they are exact and the result is that of Earmark.
class Decider {
 public:
  Decider(const json& manifest, double threshold) : labels_(manifest["labels"]) {
    const json& d = manifest["decision"];
    const json& g = manifest["geometry"];
    double step = g["step"].get<double>() / g["sample_rate"].get<double>();
    window_ = std::max(1.0, std::nearbyint(d["smoothing"].get<double>() / step));  // half to even
    refractory_ = std::ceil(d["refractory"].get<double>() / step - 1e-9);
    sums_.resize(labels_.size());
    rows_.resize(window_ * labels_.size());
    double full = std::ldexp(window_, 32);
    for (size_t label = 0; label < labels_.size(); ++label) {
      if (labels_[label][0] == '_') continue;  // no keyword
      double level = threshold > 0 ? threshold : d["thresholds"][labels_[label]].get<double>();
      int64_t fire = std::max<int64_t>(1, int64_t(std::ceil(level * full)) - window_);
      int64_t rearm = std::ceil(d["release"].get<double>() * level * full);
      keywords_.push_back({label, fire, std::min(fire, std::max<int64_t>(1, rearm))});
    }
  }

  // Takes the next step; `end` is the audio time at its end.
  void step(const float* posteriors, double end) {
    int64_t* row = &rows_[step_ % window_ * labels_.size()];
    for (size_t label = 0; label < labels_.size(); ++label) {
      int64_t value = std::ldexp(double(posteriors[label]), 32);
      sums_[label] += value - row[label];
      row[label] = value;
    }
    for (Keyword& k : keywords_) {
      int64_t sum = sums_[k.label];
      if (sum < k.rearm) k.armed = true;
      if (!k.armed || sum < k.fire || step_ < k.ready) continue;
      k.armed = false;
      k.ready = step_ + refractory_;
      nlohmann::ordered_json event = {{"type", "detection"},
                                      {"source", "-"},
                                      {"keyword", labels_[k.label]},
                                      {"time", rounded(end)},
                                      {"score", rounded(sum / std::ldexp(window_, 32))}};
      std::puts(event.dump().c_str());
      std::fflush(stdout);
    }
    ++step_;
  }

 private:
  std::vector<std::string> labels_;
  std::vector<Keyword> keywords_;
  std::vector<int64_t> sums_, rows_;  // by label; the steps of the window
  int64_t window_, refractory_, step_ = 0;
};

void to_posteriors(float* row, size_t labels, bool exclusive) {
  float most = exclusive ? *std::max_element(row, row + labels) : 0, sum = 0;
  for (size_t i = 0; i < labels; ++i) {
    row[i] = exclusive ? std::exp(row[i] - most) : 1 / (1 + std::exp(-row[i]));
    sum += row[i];
  }
  for (size_t i = 0; exclusive && i < labels; ++i) row[i] /= sum;
}

void detect(const char* path, double threshold) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "earmark");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, path, options);
  Ort::AllocatorWithDefaultOptions allocator;
  auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("earmark", allocator);
  if (!text) throw std::runtime_error("is no model that earmark export wrote");
  json manifest = json::parse(text.get()), geometry = manifest["geometry"];
  size_t labels = manifest["labels"].size(), chunk = geometry["chunk"], step = geometry["step"];
  double rate = geometry["sample_rate"];
  bool exclusive = manifest.value("activation", "softmax") == "softmax";
  Decider decider(manifest, threshold);

  std::vector<int16_t> pcm(chunk);
  std::vector<float> audio(chunk), logits(chunk / step * labels), caches[2];
  for (auto& cache : caches) cache.resize(geometry["cache"]);  // zeros: the start of a stream
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto tensor = [&](std::vector<float>& data, std::vector<int64_t> shape) {
    return Ort::Value::CreateTensor(memory, data.data(), data.size(), shape.data(), shape.size());
  };
  auto flat = [&](std::vector<float>& data) { return tensor(data, {1, int64_t(data.size())}); };
  Ort::IoBinding calls[2] = {Ort::IoBinding(session), Ort::IoBinding(session)};
  for (int i : {0, 1}) {  // what one call writes as its cache, the next reads
    calls[i].BindInput("pcm", flat(audio));
    calls[i].BindInput("cache", flat(caches[i]));
    calls[i].BindOutput("logits", tensor(logits, {1, int64_t(chunk / step), int64_t(labels)}));
    calls[i].BindOutput("cache_out", flat(caches[1 - i]));
  }

  // Half a second of silence follows the audio, and what completes a chunk.
  int64_t total = 0, tail = std::nearbyint(0.5 * rate);
  bool ended = false;
  for (int64_t start = 0; !ended || start < total + tail; start += chunk) {
    size_t count = ended ? 0 : std::fread(pcm.data(), sizeof pcm[0], chunk, stdin);
    ended = count < chunk;
    if (start == 0 && count >= 2 && std::memcmp(pcm.data(), "RIFF", 4) == 0)
      throw std::runtime_error("standard input: is a WAV file: give raw 16-bit samples, no header");
    total += count;
    if (start == 0 && count == 0)
      throw std::runtime_error("standard input: ended before any audio came");
    for (size_t i = 0; i < chunk; ++i) audio[i] = i < count ? pcm[i] / 32768.0f : 0.0f;
    session.Run(Ort::RunOptions{nullptr}, calls[start / chunk % 2]);
    for (size_t row = 0; row < chunk / step; ++row) {
      to_posteriors(&logits[row * labels], labels, exclusive);
      double end = start + (row + 1) * step;
      decider.step(&logits[row * labels], (ended ? std::min(end, double(total)) : end) / rate);
    }
  }
}

double threshold(const std::string& text) {
  size_t end = 0;
  double value = 0;
  try {
    value = std::stod(text, &end);
  } catch (const std::logic_error&) {
    end = std::string::npos;  // no number, or one too large
  }
  if (end != text.size() || !(value > 0 && value <= 1))
    throw std::runtime_error("--threshold " + text + ": give a number above 0 and at most 1");
  return value;
}

int main(int count, char** arguments) try {
  bool low = count == 4 && std::string(arguments[2]) == "--threshold";
  if (count != 2 && !low) throw std::runtime_error("usage: detect MODEL [--threshold T]");
  detect(arguments[1], low ? threshold(arguments[3]) : 0);
} catch (const std::exception& error) {
  std::string message = error.what();
  std::fprintf(stderr, "detect: %s\n", message.substr(0, message.find('\n')).c_str());
  return 1;
}
