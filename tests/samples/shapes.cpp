#include <vector>
using namespace std;

namespace shapes {

constexpr int kLimit = 10;

// Adds up.
template <typename T>
[[nodiscard]] T area(T width) {
    return width;
}

class Shape : public Base {
public:
    explicit Shape(std::string name) : name_(std::move(name)) {}
    virtual ~Shape() = default;
    int size() const;
    bool operator==(const Shape& o) const { return true; }
    const Shape& self();
private:
    std::string name_;
};

}  // namespace shapes

extern "C" {
int c_api(void);
}
int shapes::Shape::size() const { return 1; }
const Shape& shapes::Shape::self() { return *this; }
enum class Color { Red };
