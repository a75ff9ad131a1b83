#include "core/secrets.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/mutex.h"
#include "core/percent.h"
#include "core/text.h"
#include "core/url_text.h"

namespace relay::secrets {
namespace {

constexpr std::size_t kGram = kShortest;
constexpr std::size_t kLongest = 16 * 1024;
// Secrets without a name were written literally. A role may configure any number of them.
constexpr std::size_t kMostNameless = 4096;

std::uint64_t gram_at(std::string_view text, std::size_t at) {
  std::uint64_t gram = 0;
  std::memcpy(&gram, text.data() + at, kGram);
  return gram;
}

std::string percent_encoded(std::string_view text, std::string_view digits, bool all) {
  std::string out;
  for (const char c : text) {
    if (!all && is_unreserved(c)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

std::string json_escaped(std::string_view text) {
  const std::string quoted = json_string(text);
  return quoted.substr(1, quoted.size() - 2);
}

/// The base64 digits that depend on `text` alone, whatever precedes and follows it. `skipped`: how
/// many bytes of its first group of three precede it.
std::string base64_core(std::string_view text, std::size_t skipped, std::string_view last_digits) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  const auto digit = [&](unsigned value) {
    return value < kDigits.size() ? kDigits[value] : last_digits[value - kDigits.size()];
  };
  text.remove_prefix(std::min(text.size(), (3 - skipped) % 3));
  std::string out;
  for (std::size_t i = 0; i + 3 <= text.size(); i += 3) {
    const auto byte = [&](std::size_t k) {
      return static_cast<unsigned>(static_cast<unsigned char>(text[i + k]));
    };
    const unsigned bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (const int shift : {18, 12, 6, 0}) out += digit(bits >> shift & 63);
  }
  return out;
}

/// All forms in which a secret may appear in a text.
std::set<std::string> forms_of(std::string_view secret) {
  constexpr std::string_view kUpper = "0123456789ABCDEF";
  constexpr std::string_view kLower = "0123456789abcdef";
  std::set<std::string> forms{std::string(secret), json_escaped(secret)};
  for (const std::string_view digits : {kUpper, kLower}) {
    forms.insert(percent_encoded(secret, digits, false));
    forms.insert(percent_encoded(secret, digits, true));
  }
  for (const std::string_view last_digits : {"+/", "-_"}) {
    for (std::size_t skipped = 0; skipped < 3; ++skipped) {
      forms.insert(base64_core(secret, skipped, last_digits));
    }
  }
  std::erase_if(forms, [](const std::string& form) { return form.size() < kGram; });
  return forms;
}

std::string plain_name(std::string_view name) {
  std::string out(name.empty() ? kMask : name);
  // Names stand inside JSON, TOML and SQL texts, whose quotes they must not end.
  std::replace_if(
      out.begin(), out.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\'; }, '?');
  return out;
}

/// All secrets that this process has read, by the parts of 8 bytes that they consist of.
class Memory {
 public:
  void remember(std::string_view secret, std::string_view name) {
    secret = secret.substr(0, kLongest);
    if (secret.size() < kGram) return;
    const MutexLock lock(mutex_);
    const auto [entry, is_new] = names_.try_emplace(std::string(secret), plain_name(name));
    if (!is_new) return;
    add(entry->first, entry->second);
    if (!name.empty()) return;
    nameless_.push_back(entry->first);
    if (nameless_.size() > kMostNameless) forget_oldest();
  }

  std::string masked(std::string_view text) const {
    std::string out;
    const MutexLock lock(mutex_);
    if (grams_.empty() || text.size() < kGram) return std::string(text);
    std::size_t hidden = 0;  // everything before this was written, or is masked
    const std::string* name = nullptr;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto found = i + kGram <= text.size() ? grams_.find(gram_at(text, i)) : grams_.end();
      if (found != grams_.end()) {
        // Parts that touch or overlap are one secret, or several of which the first is named.
        if (i >= hidden || !name) {
          name = &found->second;
          out += *name;
        }
        hidden = i + kGram;
      } else if (i >= hidden) {
        out += text[i];
        name = nullptr;
      }
    }
    return out;
  }

 private:
  void add(const std::string& secret, const std::string& name) RELAY_REQUIRES(mutex_) {
    for (const std::string& form : forms_of(secret)) {
      for (std::size_t i = 0; i + kGram <= form.size(); ++i) {
        grams_.try_emplace(gram_at(form, i), name);
      }
    }
  }

  void forget_oldest() RELAY_REQUIRES(mutex_) {
    for (std::size_t i = 0; i < kMostNameless / 4; ++i) {
      names_.erase(nameless_.front());
      nameless_.pop_front();
    }
    grams_.clear();
    for (const auto& [secret, name] : names_) add(secret, name);
  }

  mutable Mutex mutex_;
  // The name of each secret, and the name of the secret that each part is of.
  std::unordered_map<std::string, std::string> names_ RELAY_GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, std::string> grams_ RELAY_GUARDED_BY(mutex_);
  std::deque<std::string> nameless_ RELAY_GUARDED_BY(mutex_);  // the oldest first
};

// Never destroyed: threads may still log while the program ends.
Memory& memory() {
  static Memory& instance = *new Memory();
  return instance;
}

}  // namespace

void remember(std::string_view secret, std::string_view name) {
  if (!is_url(secret) && !is_connection_string(secret)) {
    memory().remember(secret, name);
    return;
  }
  for (const std::string& part : secrets_in_url(secret)) memory().remember(part, name);
  if (name.empty()) return;
  for (const std::string& path : paths_in_url(secret)) memory().remember(path, name);
}

std::string masked(std::string_view text) {
  return mask_structure(memory().masked(text));
}

}  // namespace relay::secrets
