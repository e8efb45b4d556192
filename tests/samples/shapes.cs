using System;
using System.Linq;

namespace Shapes
{
    /// <summary>A shape.</summary>
    [Serializable]
    public class Shape : Base
    {
        private const int Limit = 10;
        public string Name { get; set; }
        public Shape(string name) : base(name) { Name = name; }
        [Obsolete]
        public int Size() => 1;
        public static bool operator ==(Shape a, Shape b) { return true; }
    }
    interface ISized { int Size(); }
}
