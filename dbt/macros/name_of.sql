{#- The name of a number that counts from 1. -#}
{% macro name_of(number, names) -%}
case {{ number }}
    {%- for name in names %} when {{ loop.index }} then '{{ name }}'{% endfor %}
end
{%- endmacro %}
