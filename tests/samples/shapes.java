package shapes;

import java.util.List;
import static java.lang.Math.*;

/** A shape. */
@Entity
public class Shape<T> extends Base implements Sized {
    private static final int LIMIT = 10;

    public Shape(String name) { this.name = name; }

    /** The size. */
    @Override
    public int size() throws IOException {
        return 1;
    }
}

interface Sized { int size(); }
enum Color { RED, GREEN; int f() { return 1; } }
record Point(int x, int y) {}
